// Pure: no runtime, no clock, no socket, no random numbers.

//! Texts inside of markup: escaped texts, times and parts.

use std::{
    fmt::{self, Display, Write as _},
    time::Duration,
};

/// A text that stands in markup as itself, whatever it contains: in an element or in a quoted attribute.
pub(super) struct Escaped<'a, T>(pub(super) &'a T);

impl<T: Display> Display for Escaped<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

        impl fmt::Write for Escaping<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                text.chars().try_for_each(|char| match char {
                    '&' => self.0.write_str("&amp;"),
                    '<' => self.0.write_str("&lt;"),
                    '>' => self.0.write_str("&gt;"),
                    '"' => self.0.write_str("&quot;"),
                    '\'' => self.0.write_str("&#39;"),
                    '\n' | '\t' => self.0.write_char(char),
                    // No markup may contain these, or they change the order of what follows.
                    char if char.is_control()
                        || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}'..='\u{ffff}') =>
                    {
                        self.0.write_char(char::REPLACEMENT_CHARACTER)
                    }
                    char => self.0.write_char(char),
                })
            }
        }

        write!(Escaping(f), "{}", self.0)
    }
}

/// A time as an operator reads it: two parts at most.
pub(super) fn ago(time: Duration) -> impl Display {
    let seconds = time.as_secs();
    match seconds {
        _ if time == Duration::MAX => "ever".to_owned(),
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", (time.as_secs_f64() * 10.0).floor() / 10.0),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A part of a whole. A part that is not zero is not shown as zero, and one that is not all not as all.
pub(super) fn percent(part: f64) -> impl Display {
    let rounded = (1000.0 * part).round() / 10.0;
    match part {
        _ if part > 0.0 && rounded == 0.0 => "< 0.1 %".to_owned(),
        _ if part < 1.0 && rounded >= 100.0 => "> 99.9 %".to_owned(),
        _ => format!("{rounded:.1} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_ends_an_element_or_an_attribute() {
        let foreign =
            "<script>alert('x')</script>\" onload=\"&amp;\u{0}\u{1b}\u{85}\u{ffff}\u{202e}\u{2066}é\n";
        let shown = Escaped(&foreign).to_string();
        assert_eq!(
            shown,
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot; onload=&quot;&amp;amp;\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}é\n"
        );
    }

    #[test]
    fn times_and_parts_are_short_and_not_rounded_to_something_else() {
        let shown = |millis| ago(Duration::from_millis(millis)).to_string();
        assert_eq!([0, 999, 1000, 9_990, 59_999].map(shown), ["0 ms", "999 ms", "1.0 s", "9.9 s", "59.9 s"]);
        assert_eq!([60_000, 3_599_999].map(shown), ["1 min 0 s", "59 min 59 s"]);
        assert_eq!([7_200_000, 90_000_000].map(shown), ["2 h 0 min", "1 d 1 h"]);
        let shown = |part| percent(part).to_string();
        assert_eq!(
            [0.0, 0.0004, 0.5, 0.9996, 1.0].map(shown),
            ["0.0 %", "< 0.1 %", "50.0 %", "> 99.9 %", "100.0 %"]
        );
    }
}
