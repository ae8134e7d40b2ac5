// Pure: no runtime, no clock, no socket, no random numbers.

//! From how many candidates to choose while other processes are after them as well.
//!
//! One worker takes the first of a list. Several that all want the first get in each other's way: all but one have sent
//! a request for nothing. So whoever keeps losing chooses among more of those that are as good.

/// Among at most so many is chosen.
const WIDEST: usize = 64;

/// How wide to choose, learned from how the last attempts ended.
///
/// A single miss comes from a list that is out of date; several in a row mean rivals. Wider at once and narrower in
/// small steps: each miss is a request for nothing, and the rivals are still there after a hit.
#[derive(Debug)]
pub(crate) struct Rivals {
    width: usize,
    misses: u32,
}

impl Rivals {
    pub(crate) fn new() -> Self {
        Rivals { width: 1, misses: 0 }
    }

    /// Among how many to choose: 1, the first, without rivals.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Takes note of whether what was chosen was still to be had.
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
