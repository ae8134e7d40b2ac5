//! Pure: numbers as people read them.

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

/// `340 ns`, `7.7 µs`, `12 ms`, `1.3 s`.
pub fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        ..1e-6 => format!("{:.0} ns", seconds * 1e9),
        ..1e-3 => format!("{} µs", short(seconds * 1e6)),
        ..1.0 => format!("{} ms", short(seconds * 1e3)),
        _ => format!("{} s", short(seconds)),
    }
}

/// `340 B`, `7.7 KiB`, `12.1 MiB`.
pub fn bytes(bytes: usize) -> String {
    let count = bytes as f64;
    match bytes {
        ..1024 => format!("{bytes} B"),
        1024..0x10_0000 => format!("{} KiB", short(count / 1024.0)),
        _ => format!("{} MiB", short(count / 1_048_576.0)),
    }
}

/// `1 000 000`.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let parts: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|part| str::from_utf8(part).expect("digits")).collect();
    parts.join(" ")
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
        assert_eq!(time(Duration::from_nanos(7_700)), "7.70 µs");
        assert_eq!([7, 1000, 1_234_567].map(grouped), ["7", "1 000", "1 234 567"]);
        assert_eq!(bytes(24_576), "24.0 KiB");
        assert_eq!([0.05, 1.2, 30.0, 1000.0, 5e6].map(tick), ["0.05", "1.2", "30", "1k", "5M"]);
    }
}
