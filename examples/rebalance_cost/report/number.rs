//! Pure: numbers in a readable form.

use std::time::Duration;

/// Three digits that count, and no more zeros than needed: `0.123`, `1.05`, `98.2`, `1210`.
pub fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        ..0.01 => format!("{value:.4}"),
        ..1.0 => format!("{value:.3}"),
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// `340ns`, `7.7µs`, `12.3ms`, `1.3s`.
pub fn time(time: Duration) -> String {
    if time < Duration::from_micros(1) { format!("{time:?}") } else { format!("{time:.1?}") }
}

/// The text at a mark of a logarithmic axis: `0.05`, `1.2`, `30`, `1k`, `5M`.
pub fn tick(value: f64) -> String {
    let plain = |value: f64| {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    };
    match value {
        1e9.. => plain(value / 1e9) + "G",
        1e6.. => plain(value / 1e6) + "M",
        1e3.. => plain(value / 1e3) + "k",
        _ => plain(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_long_as_they_are_exact() {
        let numbers = [0.0, 0.0033, 0.0897, 1.157, 9.999, 12.34, 98.2, 1210.4];
        assert_eq!(numbers.map(short), ["0", "0.0033", "0.090", "1.16", "10.0", "12.3", "98.2", "1210"]);
        assert_eq!(
            [340, 7_700, 12_345_678].map(|it| time(Duration::from_nanos(it))),
            ["340ns", "7.7µs", "12.3ms"]
        );
        assert_eq!([0.05, 1.2, 30.0, 1000.0, 5e6].map(tick), ["0.05", "1.2", "30", "1k", "5M"]);
    }
}
