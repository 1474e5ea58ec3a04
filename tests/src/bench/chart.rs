//! Bars as SVG.

use anyhow::{Result, anyhow};
use plotters::{
    backend::SVGBackend,
    chart::ChartBuilder,
    coord::ranged1d::{IntoSegmentedCoord as _, SegmentValue},
    drawing::IntoDrawingArea as _,
    element::{PathElement, Rectangle},
    style::{Color as _, IntoFont as _, RGBColor, ShapeStyle, TextStyle},
};

use super::row::{Row, Spread};

/// Legible on white and on black alike: 4.5 : 1 on the one, 4.6 : 1 on the other.
const TEXT: RGBColor = RGBColor(0x76, 0x76, 0x76);
/// Colours of the series, told apart by the colour-blind and on either background (Okabe and Ito's, without the extremes).
const SERIES: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
];
const WIDTH: u32 = 840;
const BAR: u32 = 22;
const LABELS: u32 = 300;

/// A horizontal bar chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// The file's name without its extension.
    pub name: String,
    /// Above it.
    pub title: String,
    /// Of the axis.
    pub unit: String,
    /// From above.
    pub bars: Vec<Bar>,
}

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Left of it.
    pub label: String,
    /// Bars of one series have one colour.
    pub series: usize,
    /// Its length, and a line from quartile to quartile.
    pub value: Spread,
}

impl Chart {
    /// One with a bar for each row with enough quiet rounds, coloured by what `series` says of it; its label is `label` of the row.
    #[must_use]
    pub fn of<'a>(
        [name, title, unit]: [&str; 3],
        rows: impl IntoIterator<Item = &'a Row>,
        label: impl Fn(&Row) -> String,
        series: impl Fn(&Row) -> String,
    ) -> Self {
        let mut known = Vec::new();
        let bars = rows
            .into_iter()
            .filter(|row| row.is_sound())
            .map(|row| {
                let name = series(row);
                let number = known
                    .iter()
                    .position(|each| *each == name)
                    .unwrap_or_else(|| {
                        known.push(name);
                        known.len() - 1
                    });
                Bar {
                    label: label(row),
                    series: number,
                    value: row.shown(),
                }
            })
            .collect();
        Self {
            name: name.to_owned(),
            title: title.to_owned(),
            unit: unit.to_owned(),
            bars,
        }
    }

    /// The SVG, without a background.
    ///
    /// # Errors
    ///
    /// If it has no bar, or cannot be drawn.
    pub fn svg(&self) -> Result<String> {
        let mut text = String::new();
        self.draw(&mut text)
            .map_err(|error| anyhow!("draw the chart {}: {error}", self.name))?;
        // The SVG of the same figures is to be the same bytes, ending as text files do.
        text.push('\n');
        Ok(text)
    }

    fn draw(&self, text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let count = u32::try_from(self.bars.len())?;
        if count == 0 {
            return Err("it has no bar".into());
        }
        let longest = self
            .bars
            .iter()
            .map(|bar| bar.value.high)
            .fold(0.0, f64::max);
        let least = self
            .bars
            .iter()
            .map(|bar| bar.value.low)
            .fold(0.0, f64::min);
        let area = SVGBackend::with_string(text, (WIDTH, 90 + BAR * count)).into_drawing_area();
        let font = |size: i32| -> TextStyle<'_> { ("sans-serif", size).into_font().color(&TEXT) };
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, font(16))
            .margin(8)
            .x_label_area_size(44)
            .y_label_area_size(LABELS)
            .build_cartesian_2d(least..longest * 1.05, (0..count - 1).into_segmented())?;
        let label = |at: &SegmentValue<u32>| match at {
            SegmentValue::CenterOf(at) => {
                let from_above = (count - 1).saturating_sub(*at) as usize;
                self.bars
                    .get(from_above)
                    .map_or(String::new(), |bar| bar.label.clone())
            }
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TEXT.mix(0.0))
            .bold_line_style(TEXT.mix(0.3))
            .axis_style(TEXT)
            .x_desc(&self.unit)
            .x_label_style(font(13))
            .y_label_style(font(13))
            .y_labels(self.bars.len())
            .y_label_formatter(&label)
            .draw()?;
        for (at, bar) in (0..count).rev().zip(&self.bars) {
            let colour = SERIES[bar.series % SERIES.len()];
            let mut rectangle = Rectangle::new(
                [
                    (0.0, SegmentValue::Exact(at)),
                    (bar.value.median, SegmentValue::Exact(at + 1)),
                ],
                colour.filled(),
            );
            rectangle.set_margin(3, 3, 0, 0);
            chart.draw_series([rectangle])?;
            let whisker = vec![
                (bar.value.low, SegmentValue::CenterOf(at)),
                (bar.value.high, SegmentValue::CenterOf(at)),
            ];
            let line = ShapeStyle::from(&TEXT).stroke_width(2);
            chart.draw_series([PathElement::new(whisker, line)])?;
        }
        area.present()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::row::{Setting, setting},
        *,
    };

    #[test]
    fn every_bar_is_drawn_and_named() {
        let row = |case: &str, hook: &str, value: f64| {
            let at: Setting = setting(&[("hook", hook)]);
            Row::alone("program", &at, [case, "all", "ns"], [value])
        };
        let rows = [
            row("TCP", "XDP", 3.0),
            row("TCP", "TC", 4.0),
            row("ESP", "XDP", 40.0),
        ];
        let chart = Chart::of(
            ["program", "What a packet costs", "ns"],
            &rows,
            |row| format!("{}, {}", row.case, row.at("hook")),
            |row| row.at("hook").to_owned(),
        );
        let svg = chart.svg().unwrap();
        for label in ["TCP, XDP", "TCP, TC", "ESP, XDP", "What a packet costs"] {
            assert!(svg.contains(label), "{label} in {svg}");
        }
        assert_eq!(svg.matches("#0072B2").count(), 2);
        assert_eq!(svg.matches("#D55E00").count(), 1);
        assert!(!svg.contains("#FFFFFF"), "a background: {svg}");
    }

    #[test]
    fn nothing_is_no_chart() {
        let none: [Row; 0] = [];
        let chart = Chart::of(["a", "b", "c"], &none, Row::to_string, Row::to_string);
        assert!(chart.svg().is_err());
    }
}
