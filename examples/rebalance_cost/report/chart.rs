//! A chart of lines, both axes logarithmic, as SVG for a page.
//!
//! `plotters` draws it: of the plotting crates it is the most used, and without its default features it adds
//! three small crates. Those that make interactive plots, plotly and charming, embed a script of some
//! megabytes or fetch one; a page that may be opened years later, offline, needs none.

use std::fmt::Write as _;

use plotters::{coord::combinators::BindKeyPoints as _, prelude::*};

use super::number::tick;
use crate::support::Failure;

/// Colours that are apart for all eyes, on a light and on a dark page.
pub const COLOURS: [(&str, &str); 8] = [
    ("#0072B2", "#56A9E0"),
    ("#D55E00", "#FF8A3D"),
    ("#009E73", "#35C79C"),
    ("#AA3377", "#EE88BB"),
    ("#A07000", "#F0C244"),
    ("#4B4BB5", "#A6A6FF"),
    ("#666666", "#ABABAB"),
    ("#B22222", "#FF7B7B"),
];
/// The parts of every chart, which the style of the page colours.
pub const GRID: &str = "#DDDDDD";
pub const INK: &str = "#222222";

const SIZE: (u32, u32) = (620, 380);

pub struct Chart {
    pub title: &'static str,
    pub x: &'static str,
    pub y: &'static str,
    /// The marks of the x axis.
    pub marks: Vec<f64>,
    pub lines: Vec<Line>,
    /// The description, in HTML.
    pub text: &'static str,
}

pub struct Line {
    pub name: String,
    /// In [`COLOURS`].
    pub colour: usize,
    pub is_dashed: bool,
    /// Those that are not above zero, such as a time too short for the clock, have no place on the axes and are
    /// left out.
    pub points: Vec<(f64, f64)>,
}

impl Line {
    fn drawn(&self) -> impl Iterator<Item = (f64, f64)> + Clone + '_ {
        self.points.iter().copied().filter(|(x, y)| [x, y].iter().all(|it| it.is_finite() && **it > 0.0))
    }
}

impl Chart {
    /// The chart with its title, legend and text.
    pub fn figure(&self) -> Result<String, Failure> {
        let legend = self.lines.iter().fold(String::new(), |mut legend, line| {
            let dashed = if line.is_dashed { " dashed" } else { "" };
            write!(legend, "<li class=\"c{}{dashed}\">{}</li>", line.colour, line.name)
                .expect("writing to a text cannot fail");
            legend
        });
        Ok(format!(
            "<figure><h3>{}</h3>\n{}\n<ul class=\"legend\">{legend}</ul>\n<figcaption>{}</figcaption></figure>\n",
            self.title,
            self.svg()?,
            self.text
        ))
    }

    fn svg(&self) -> Result<String, Failure> {
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let values = self.lines.iter().flat_map(|line| line.drawn().map(|(_, y)| y));
        let (bottom, top) = range(values);
        let (left, right) = (self.marks[0] / 1.15, self.marks[self.marks.len() - 1] * 1.15);
        let mut chart = ChartBuilder::on(&area)
            .margin(8)
            .margin_right(16)
            .x_label_area_size(52)
            .y_label_area_size(74)
            .build_cartesian_2d(
                (left..right).log_scale().with_key_points(self.marks.clone()),
                (bottom..top).log_scale().with_key_points(marks(bottom, top)),
            )?;
        let ink = colour(INK);
        let text = TextStyle::from(("sans-serif", 17)).color(&ink);
        chart
            .configure_mesh()
            .max_light_lines(0)
            .bold_line_style(colour(GRID))
            .axis_style(ink)
            .label_style(text.clone())
            .axis_desc_style(text)
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&|value| tick(*value))
            .y_label_formatter(&|value| tick(*value))
            .draw()?;
        for line in &self.lines {
            let style = colour(COLOURS[line.colour].0).stroke_width(2);
            let points = line.drawn();
            if line.is_dashed {
                chart.draw_series(DashedLineSeries::new(points, 6, 5, style))?;
            } else {
                chart.draw_series(points.clone().map(|point| Circle::new(point, 3, style.filled())))?;
                chart.draw_series(LineSeries::new(points, style))?;
            }
        }
        drop(chart);
        area.present()?;
        drop(area);
        // The page gives the width; the box keeps the shape.
        Ok(svg.replacen(
            &format!("width=\"{}\" height=\"{}\"", SIZE.0, SIZE.1),
            &format!("role=\"img\" aria-label=\"{}: {} by {}\"", self.title, self.y, self.x),
            1,
        ))
    }
}

fn colour(code: &str) -> RGBColor {
    let part = |at: usize| u8::from_str_radix(&code[at..at + 2], 16).expect("colours are written in hex");
    RGBColor(part(1), part(3), part(5))
}

/// From the least to the most, with some room.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let extremes = values.map(|y| (y, y)).reduce(|(least, most), (y, _)| (least.min(y), most.max(y)));
    let (least, most) = extremes.unwrap_or((1.0, 1.0));
    let room = (most / least).powf(0.06).max(1.02);
    (least / room, most * room)
}

/// As many round numbers as an axis has room for.
fn marks(bottom: f64, top: f64) -> Vec<f64> {
    let steps: &[f64] = match top / bottom {
        // So short that equal distances are easier to read.
        ..5.0 => return even_marks(bottom, top),
        ..20.0 => &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
        ..500.0 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let decades = bottom.log10().floor() as i32..=top.log10().ceil() as i32;
    let all = decades.flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)));
    all.filter(|mark| (bottom..=top).contains(mark)).collect()
}

fn even_marks(bottom: f64, top: f64) -> Vec<f64> {
    const AT_MOST: f64 = 8.0;
    let decade = 10f64.powf(((top - bottom) / AT_MOST).log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|step| step * decade);
    let step = steps.into_iter().find(|step| (top - bottom) / step <= AT_MOST).unwrap_or(10.0 * decade);
    let (first, last) = ((bottom / step).ceil() as i64, (top / step).floor() as i64);
    (first..=last).map(|number| number as f64 * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_place_on_a_logarithmic_axis_is_left_out() {
        let line = |points: &[(f64, f64)]| Line {
            name: "line".into(),
            colour: 0,
            is_dashed: false,
            points: points.to_vec(),
        };
        for points in [&[(1.0, 0.0), (10.0, 3.0), (100.0, f64::NAN)][..], &[(1.0, 0.0)], &[]] {
            let lines = vec![line(points)];
            let chart = Chart { title: "t", x: "x", y: "y", marks: vec![1.0, 100.0], lines, text: "" };
            let circles = chart.figure().unwrap().matches("<circle").count();
            assert_eq!(circles, points.iter().filter(|(_, y)| *y > 0.0).count(), "{points:?}");
        }
    }

    #[test]
    fn an_axis_has_a_few_round_marks() {
        assert_eq!(marks(0.9, 120.0), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(marks(0.5, 2e7).len(), 8);
        assert_eq!(
            marks(0.9, 1.41).iter().map(|mark| tick(*mark)).collect::<Vec<_>>(),
            ["0.9", "1", "1.1", "1.2", "1.3", "1.4"]
        );
        for top in 102..2000 {
            let count = marks(1.0, f64::from(top) / 100.0).len();
            assert!((3..=10).contains(&count), "{count} up to {top} %");
        }
    }
}
