// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Rivals`]: among how many candidates to choose while other processes choose, too.
//!
//! A worker takes the first candidate of a list. If several workers want the first one, all but one of them have sent a
//! request without success. So a worker that keeps losing chooses among more candidates that are equally good.

/// The largest number of candidates to choose among.
const WIDEST: usize = 64;

/// The number of candidates to choose among, which depends on the last attempts.
///
/// A single miss means that the list is out of date. Several in a row mean that there are rivals. The number doubles at
/// each further miss, because a miss is a wasted request. It shrinks in small steps, because the rivals are still there
/// after a hit.
#[derive(Debug)]
pub(crate) struct Rivals {
    width: usize,
    misses: u32,
}

impl Rivals {
    pub(crate) fn new() -> Self {
        Rivals { width: 1, misses: 0 }
    }

    /// Among how many candidates to choose; 1, the first, without rivals.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Notes whether the chosen candidate was still available.
    pub(crate) fn note(&mut self, was_there: bool) {
        self.misses = if was_there { 0 } else { self.misses + 1 };
        match self.misses {
            0 => self.width = (self.width - 1).max(1),
            1 => {}
            _ => self.width = (self.width * 2).min(WIDEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn width(outcomes: &[bool]) -> usize {
        let mut rivals = Rivals::new();
        outcomes.iter().for_each(|was_there| rivals.note(*was_there));
        rivals.width()
    }

    #[test]
    fn it_widens_at_the_second_miss_in_a_row_and_narrows_step_by_step() {
        assert_eq!(width(&[]), 1);
        assert_eq!(width(&[false, true, false, true]), 1, "a list that is out of date now and then");
        assert_eq!(width(&[false, false]), 2);
        assert_eq!(width(&[false, false, false, false]), 8);
        assert_eq!(width(&[false; 40]), WIDEST);
        assert_eq!(width(&[false, false, false, false, true, true]), 6);
        assert_eq!(width(&[&[false; 9][..], &[true; 99]].concat()), 1);
    }
}
