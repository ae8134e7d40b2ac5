// Pure: no runtime, no clock, no socket, no random numbers.

//! [`RingKey`]: the bytes that are hashed to find the owner of an item.

use std::{borrow::Cow, fmt, io::Write as _, rc::Rc, sync::Arc};

use uuid::Uuid;

use super::python;

/// An item that has an owner on a [`HashRing`](super::HashRing). The trait returns the bytes that are hashed.
///
/// Implemented for text (its UTF-8), integers (their decimal text), uuids (lower case, hyphenated), raw bytes and
/// references to all of these. Python peers hash `str(key)`, which gives the same bytes for text, integers and
/// uuids. For keys that are `bytes` in Python, see [`PyBytes`].
///
/// Not implemented for `bool` and floats, because their text differs between languages. If two members print a key
/// differently, both of them or none would own it.
///
/// ```
/// use std::borrow::Cow;
/// use apportion::{HashRing, RingKey};
///
/// struct Alarm {
///     id: String,
///     threshold: f64,
/// }
///
/// impl RingKey for Alarm {
///     fn ring_key(&self) -> Cow<'_, [u8]> {
///         self.id.ring_key()
///     }
/// }
///
/// let ring = HashRing::builder().members(["a", "b"]).build()?;
/// let alarm = Alarm { id: "alarm-17".into(), threshold: 0.9 };
/// assert_eq!(ring.owner(&alarm), ring.owner("alarm-17"));
/// # Ok::<(), apportion::ring::RingError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a key of a hash ring",
    note = "text, integers, uuids and byte slices are keys; implement `RingKey` for your type, or pick a key with a closure"
)]
pub trait RingKey {
    /// The bytes that are hashed. They have to be the same in every process of the fleet, as long as the item exists.
    fn ring_key(&self) -> Cow<'_, [u8]>;

    /// The same bytes, written to `buffer` if they are not in memory already.
    ///
    /// Implementing this method is optional. It saves an allocation where [`ring_key`](RingKey::ring_key) would return
    /// an owned value: call it for the key inside, as in `self.id.ring_key_with(buffer)`.
    fn ring_key_with<'a>(&'a self, buffer: &'a mut KeyBuffer) -> &'a [u8] {
        buffer.keep(self.ring_key())
    }
}

/// A buffer for the bytes of a key. For [`RingKey::ring_key_with`].
#[derive(Clone, Debug)]
pub struct KeyBuffer {
    /// The length of the longest integer.
    text: [u8; 40],
    bytes: Vec<u8>,
}

impl KeyBuffer {
    /// An empty buffer. It does not allocate.
    pub const fn new() -> Self {
        KeyBuffer { text: [0; 40], bytes: Vec::new() }
    }

    /// Keeps owned bytes for as long as the buffer.
    #[inline]
    pub fn keep<'a>(&'a mut self, key: Cow<'a, [u8]>) -> &'a [u8] {
        match key {
            Cow::Borrowed(bytes) => bytes,
            Cow::Owned(bytes) => {
                self.bytes = bytes;
                &self.bytes
            }
        }
    }

    /// Writes a number. `format!` would take about as long as hashing it.
    #[inline]
    fn decimal(&mut self, mut rest: u64) -> &[u8] {
        let mut start = self.text.len();
        loop {
            start -= 1;
            self.text[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return &self.text[start..];
            }
        }
    }

    /// Writes text that fits.
    #[inline]
    fn write(&mut self, text: fmt::Arguments<'_>) -> &[u8] {
        let mut rest = &mut self.text[..];
        rest.write_fmt(text).expect("no integer is longer");
        let left = rest.len();
        &self.text[..self.text.len() - left]
    }
}

impl Default for KeyBuffer {
    fn default() -> Self {
        Self::new()
    }
}

/// Wraps a key that is `bytes` in Python: the bytes that are hashed are Python's text for it, `b'alarm-17'` with
/// quotes.
///
/// For members of an aodh fleet whose keys are `bytes` in Python.
///
/// ```
/// use apportion::{HashRing, ring::PyBytes};
///
/// let ring = HashRing::builder().members(["a", "b"]).build()?;
/// assert_eq!(ring.owner(&PyBytes("alarm-17")), ring.owner("b'alarm-17'"));
/// # Ok::<(), apportion::ring::RingError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PyBytes<T>(pub T);

impl<T: RingKey> RingKey for PyBytes<T> {
    fn ring_key(&self) -> Cow<'_, [u8]> {
        let bytes = self.0.ring_key();
        let mut text = Vec::with_capacity(bytes.len() + 3);
        python::append_repr(&mut text, &bytes);
        text.into()
    }
}

impl RingKey for str {
    fn ring_key(&self) -> Cow<'_, [u8]> {
        self.as_bytes().into()
    }
}

impl RingKey for String {
    fn ring_key(&self) -> Cow<'_, [u8]> {
        self.as_bytes().into()
    }
}

impl RingKey for [u8] {
    fn ring_key(&self) -> Cow<'_, [u8]> {
        self.into()
    }
}

impl<const N: usize> RingKey for [u8; N] {
    fn ring_key(&self) -> Cow<'_, [u8]> {
        self.as_slice().into()
    }
}

impl RingKey for Vec<u8> {
    fn ring_key(&self) -> Cow<'_, [u8]> {
        self.into()
    }
}

impl RingKey for Uuid {
    fn ring_key(&self) -> Cow<'_, [u8]> {
        self.hyphenated().to_string().into_bytes().into()
    }

    #[inline]
    fn ring_key_with<'a>(&'a self, buffer: &'a mut KeyBuffer) -> &'a [u8] {
        self.hyphenated().encode_lower(&mut buffer.text).as_bytes()
    }
}

macro_rules! decimal_text {
    ($($integer:ty)*) => {$(
        impl RingKey for $integer {
            fn ring_key(&self) -> Cow<'_, [u8]> {
                self.to_string().into_bytes().into()
            }

            #[inline]
            fn ring_key_with<'a>(&'a self, buffer: &'a mut KeyBuffer) -> &'a [u8] {
                match u64::try_from(*self) {
                    Ok(number) => buffer.decimal(number),
                    Err(_) => buffer.write(format_args!("{self}")),
                }
            }
        }
    )*};
}

decimal_text!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);

macro_rules! same_as_the_target {
    ($($pointer:ty)*) => {$(
        impl<T: RingKey + ?Sized> RingKey for $pointer {
            fn ring_key(&self) -> Cow<'_, [u8]> {
                (**self).ring_key()
            }

            #[inline]
            fn ring_key_with<'a>(&'a self, buffer: &'a mut KeyBuffer) -> &'a [u8] {
                (**self).ring_key_with(buffer)
            }
        }
    )*};
}

same_as_the_target!(&T Box<T> Rc<T> Arc<T>);

impl<T: RingKey + ToOwned + ?Sized> RingKey for Cow<'_, T> {
    fn ring_key(&self) -> Cow<'_, [u8]> {
        (**self).ring_key()
    }

    fn ring_key_with<'a>(&'a self, buffer: &'a mut KeyBuffer) -> &'a [u8] {
        (**self).ring_key_with(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<K: RingKey + ?Sized>(key: &K) -> String {
        let bytes = key.ring_key().into_owned();
        let mut buffer = KeyBuffer::new();
        assert_eq!(key.ring_key_with(&mut buffer), bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn keys_of_every_shape_are_the_text_a_person_would_write() {
        assert_eq!(text("alarm-é"), "alarm-é");
        assert_eq!(text(&String::from("alarm")), "alarm");
        assert_eq!(text(&0u8), "0");
        assert_eq!(text(&-17i64), "-17");
        assert_eq!(text(&10usize), "10");
        assert_eq!(text(&u64::MAX), "18446744073709551615");
        assert_eq!(text(&(u128::from(u64::MAX) + 1)), "18446744073709551616");
        assert_eq!(text(&i64::MIN), "-9223372036854775808");
        assert_eq!(text(&u128::MAX), "340282366920938463463374607431768211455");
        assert_eq!(text(&i128::MIN), "-170141183460469231731687303715884105728");
        let uuid = Uuid::from_u128(0x7f6b_1610_ec5a_4eee_8399_01f5_7be4_238a);
        assert_eq!(text(&uuid), "7f6b1610-ec5a-4eee-8399-01f57be4238a");
        assert_eq!([0xff, 0x00].ring_key(), &[0xff, 0x00][..], "bytes are not changed");
        assert_eq!(vec![0xff].ring_key(), &[0xff][..]);
    }

    #[test]
    fn a_pointer_to_a_key_is_the_same_key() {
        assert_eq!(text(&&&17), "17");
        assert_eq!(text::<Box<str>>(&"a".into()), "a");
        assert_eq!(text::<Arc<str>>(&"a".into()), "a");
        assert_eq!(text::<Rc<[u8]>>(&(*b"a").into()), "a");
        assert_eq!(text(&Cow::Borrowed("a")), "a");
        assert_eq!(text::<Cow<'_, [u8]>>(&Cow::Owned(b"a".to_vec())), "a");
        assert_eq!(text::<dyn RingKey>(&"a"), "a");
    }

    #[test]
    fn python_bytes_are_written_with_prefix_and_quotes() {
        assert_eq!(text(&PyBytes("alarm-17")), "b'alarm-17'");
        assert_eq!(text(&PyBytes("é's")), r#"b"\xc3\xa9's""#);
        assert_eq!(text(&PyBytes(Vec::new())), "b''");
    }
}
