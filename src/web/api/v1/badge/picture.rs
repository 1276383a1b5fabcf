//! The drawing: two rectangles side by side, a text in the middle of each.

use std::fmt::Write as _;

use super::colour::Colour;
use crate::wire::http::escape_html;

/// Characters of either text.
const TEXT_MAX: usize = 200;
const HEIGHT: f64 = 20.0;
const FONT_SIZE: f64 = 11.0;
/// On either side of a text.
const PADDING: f64 = 4.0;
const SCALE_MAX: i64 = 1000;
const WIDTH_MAX: i64 = 2000;

/// Advance widths of the font most browsers have for badges (Verdana), in thousandths of its size, from the blank on.
const WIDTHS: [u16; 95] = [
    352, 394, 459, 818, 636, 1076, 727, 269, 454, 454, 636, 818, 364, 454, 364, 454, 636, 636, 636,
    636, 636, 636, 636, 636, 636, 636, 454, 454, 818, 818, 818, 545, 1000, 684, 686, 698, 771, 632,
    575, 775, 751, 421, 455, 693, 557, 843, 748, 787, 603, 787, 695, 684, 616, 732, 684, 989, 685,
    615, 685, 454, 454, 454, 818, 636, 636, 601, 623, 521, 623, 596, 352, 623, 633, 274, 344, 592,
    274, 973, 633, 607, 623, 623, 427, 521, 394, 633, 592, 818, 592, 592, 525, 635, 454, 635, 818,
];
/// Of a character the table does not have.
const WIDTH_OTHER: u16 = 1000;

pub(super) struct Picture<'a> {
    pub(super) label: &'a str,
    pub(super) value: &'a str,
    pub(super) label_colour: Colour,
    pub(super) value_colour: Colour,
    pub(super) label_text: Colour,
    pub(super) value_text: Colour,
    /// 100 or more.
    pub(super) scale_percent: i64,
    /// Both widths, instead of what the texts need.
    pub(super) widths: Option<(i64, i64)>,
}

fn text_width(text: &str) -> f64 {
    let thousandths: u32 = text
        .chars()
        .map(|c| {
            let at = (c as usize).wrapping_sub(0x20);
            u32::from(WIDTHS.get(at).copied().unwrap_or(WIDTH_OTHER))
        })
        .sum();
    f64::from(thousandths) * FONT_SIZE / 1000.0
}

/// What is drawn of a text: printable, and not without end.
fn drawable(text: &str) -> String {
    text.chars().take(TEXT_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl Picture<'_> {
    pub(super) fn draw(&self) -> String {
        let (label, value) = (drawable(self.label), drawable(self.value));
        let scale = self.scale_percent.clamp(100, SCALE_MAX) as f64 / 100.0;
        let (label_width, value_width) = match self.widths {
            Some((l, v)) => (l.min(WIDTH_MAX) as f64, v.min(WIDTH_MAX) as f64),
            None => (text_width(&label) + 2.0 * PADDING, text_width(&value) + 2.0 * PADDING),
        };
        let (label_width, value_width) = (label_width * scale, value_width * scale);
        let (width, height) = (label_width + value_width, HEIGHT * scale);
        let radius = 3.0 * scale;
        let mut svg = String::with_capacity(2048);
        let _ = write!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.2}\" height=\"{height:.2}\">\n\
             <linearGradient id=\"shade\" x2=\"0\" y2=\"100%\"><stop offset=\"0\" stop-color=\"#bbb\" stop-opacity=\".1\"/><stop offset=\"1\" stop-opacity=\".1\"/></linearGradient>\n\
             <mask id=\"round\"><rect class=\"bdge-ttl-width\" width=\"{width:.2}\" height=\"{height:.2}\" rx=\"{radius:.2}\" fill=\"#fff\"/></mask>\n\
             <g mask=\"url(#round)\">\n\
             <rect class=\"bdge-rect-lbl\" width=\"{label_width:.2}\" height=\"{height:.2}\" fill=\"#{}\"/>\n\
             <rect class=\"bdge-rect-val\" x=\"{label_width:.2}\" width=\"{value_width:.2}\" height=\"{height:.2}\" fill=\"#{}\"/>\n\
             <rect class=\"bdge-ttl-width\" width=\"{width:.2}\" height=\"{height:.2}\" fill=\"url(#shade)\"/>\n\
             </g>\n\
             <g text-anchor=\"middle\" font-family=\"Verdana,DejaVu Sans,sans-serif\" font-size=\"{:.2}\">\n",
            self.label_colour.as_str(),
            self.value_colour.as_str(),
            FONT_SIZE * scale
        );
        let middles = [label_width / 2.0, label_width + value_width / 2.0];
        let texts =
            [("bdge-lbl-lbl", &label, self.label_text), ("bdge-lbl-val", &value, self.value_text)];
        for (x, (class, text, colour)) in middles.iter().zip(texts) {
            let text = escape_html(text);
            let (shadow, line) = (15.0 * scale, 14.0 * scale);
            let _ = write!(
                svg,
                "<text class=\"{class}\" x=\"{x:.2}\" y=\"{shadow:.2}\" fill=\"#010101\" fill-opacity=\".3\">{text}</text>\n\
                 <text class=\"{class}\" x=\"{x:.2}\" y=\"{line:.2}\" fill=\"#{}\">{text}</text>\n",
                colour.as_str()
            );
        }
        svg.push_str("</g>\n</svg>\n");
        svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture<'a>(label: &'a str, value: &'a str) -> Picture<'a> {
        Picture {
            label,
            value,
            label_colour: Colour::LABEL,
            value_colour: Colour::UNKNOWN,
            label_text: Colour::TEXT,
            value_text: Colour::TEXT,
            scale_percent: 100,
            widths: None,
        }
    }

    #[test]
    fn texts_are_escaped_and_widths_follow_them() {
        let svg = picture("a<b>", "x\u{7}\"y").draw();
        assert!(svg.contains(">a&lt;b&gt;</text>") && svg.contains(">x &quot;y</text>"), "{svg}");
        assert!((text_width("My Label") - 48.8).abs() < 0.1);
    }

    #[test]
    fn size_is_bounded_and_can_be_given() {
        let fixed = Picture { widths: Some((50, 30)), scale_percent: 200, ..picture("a", "b") };
        assert!(fixed.draw().contains("width=\"160.00\" height=\"40.00\""));
        let long = "x".repeat(100_000);
        let huge = Picture { scale_percent: i64::MAX, ..picture(&long, &long) };
        assert!(huge.draw().len() < 5000);
    }
}
