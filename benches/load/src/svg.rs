//! The table as a plot: one bar for each row, as long as the row got on its way to the target.

use std::fmt::Write;

use crate::report::Row;

const WIDTH: f64 = 960.0;
const TOP: f64 = 56.0;
const ROW: f64 = 30.0;
const BAR: f64 = 14.0;
/// Where bars begin, and how long one is that just reaches its target.
const LEFT: f64 = 400.0;
const TARGET: f64 = 150.0;
/// Bars end here, in multiples of the target.
const REACHED_MAX: f64 = 1.9;

/// Colours follow the reader's scheme; the ground is painted, so that a page of the other scheme does no harm.
const STYLE: &str = "\
    text { font: 13px system-ui, sans-serif; fill: #1f2328 }\n    \
    .ground { fill: #ffffff } .title { font-size: 15px; font-weight: 600 } .small { fill: #59636e }\n    \
    .met { fill: #2da44e } .missed { fill: #cf222e } .target { stroke: #59636e; stroke-dasharray: 4 3 }\n    \
    @media (prefers-color-scheme: dark) {\n      \
    text { fill: #e6edf3 } .ground { fill: #0d1117 } .small { fill: #9198a1 }\n      \
    .met { fill: #3fb950 } .missed { fill: #f85149 } .target { stroke: #9198a1 }\n    }";

pub fn plot(rows: &[Row]) -> String {
    let height = TOP + ROW * rows.len() as f64 + 16.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-label=\"How far each speed target was reached\">\n  \
         <style>\n    {STYLE}\n  </style>\n  <rect class=\"ground\" width=\"100%\" height=\"100%\" rx=\"6\"/>\n  \
         <text class=\"title\" x=\"16\" y=\"26\">Measured against target</text>\n  \
         <text class=\"small\" x=\"{x}\" y=\"44\" text-anchor=\"middle\">target</text>\n",
        x = LEFT + TARGET
    );
    for (index, row) in rows.iter().enumerate() {
        bar(&mut svg, row, TOP + ROW * index as f64);
    }
    let (x, bottom) = (LEFT + TARGET, height - 12.0);
    // Writing to a string cannot fail.
    let _ = writeln!(
        svg,
        "  <line class=\"target\" x1=\"{x}\" y1=\"{TOP}\" x2=\"{x}\" y2=\"{bottom}\"/>\n</svg>"
    );
    svg
}

fn bar(svg: &mut String, row: &Row, y: f64) {
    let middle = y + ROW / 2.0;
    let reached = row.reached().unwrap_or(0.0);
    let length = reached.min(REACHED_MAX) * TARGET;
    let class = if row.met() == Some(true) {
        "met"
    } else {
        "missed"
    };
    let beyond = if reached > REACHED_MAX { "» " } else { "" };
    let _ = writeln!(
        svg,
        "  <text x=\"{text}\" y=\"{base}\" text-anchor=\"end\">{what}</text>\n  \
         <rect class=\"{class}\" x=\"{LEFT}\" y=\"{top}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>\n  \
         <text x=\"{label}\" y=\"{base}\">{beyond}{measured} <tspan class=\"small\">({target})</tspan></text>",
        text = LEFT - 10.0,
        base = middle + 4.5,
        what = escape(&row.what),
        top = middle - BAR / 2.0,
        label = LEFT + length.max(TARGET) + 8.0,
        measured = escape(&short(row)),
        target = escape(&row.target_text()),
    );
}

fn short(row: &Row) -> String {
    match row.measured {
        Ok(_) => row.measured_text(),
        Err(_) => "not measured".to_owned(),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Goal;

    #[test]
    fn a_plot_has_a_bar_for_each_row_and_no_stray_markup() {
        let row = Row {
            what: "a < b & c".to_owned(),
            goal: Goal::AtLeast,
            target: 1.0,
            unit: "",
            measured: Ok(0.5),
            detail: String::new(),
        };
        let svg = plot(&[row.clone(), row]);
        assert_eq!(svg.matches("class=\"missed\"").count(), 2);
        assert!(svg.contains("a &lt; b &amp; c") && svg.ends_with("</svg>\n"));
    }
}
