// Pure: no runtime, no clock, no socket, no random numbers.

//! The text that Python prints for bytes.

use std::io::Write as _;

/// Appends Python's `repr` of `bytes` to `text`: `b'agent-0'`.
///
/// The rule: double quotes if there are single quotes and no double ones, else single quotes; the quote and the
/// backslash are escaped with a backslash, tab, newline and carriage return as letters, and everything else
/// that is not printable ASCII as two hexadecimal digits.
pub(super) fn append_repr(text: &mut Vec<u8>, bytes: &[u8]) {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { b'"' } else { b'\'' };
    text.extend([b'b', quote]);
    for &byte in bytes {
        match byte {
            b'\\' => text.extend(br"\\"),
            b'\t' => text.extend(br"\t"),
            b'\n' => text.extend(br"\n"),
            b'\r' => text.extend(br"\r"),
            _ if byte == quote => text.extend([b'\\', quote]),
            b' '..=b'~' => text.push(byte),
            _ => write!(text, "\\x{byte:02x}").expect("writing to a vector cannot fail"),
        }
    }
    text.push(quote);
}
