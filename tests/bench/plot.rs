//! One picture a figure: every round a dot, the median a line, the goal a dashed one.

use std::path::Path;

use plotters::prelude::*;

use crate::figures::{Figure, Goal, Value};
use crate::makes::Make;
use crate::statistics::{FigureSummary, seen};

const WIDTH: u32 = 720;
const ROW: u32 = 44;
const INK: RGBColor = RGBColor(60, 60, 60);
const GOAL: RGBColor = RGBColor(190, 60, 40);

fn colour(make: Make) -> RGBColor {
    match make {
        Make::Pskgate => RGBColor(20, 110, 160),
        Make::PskgateConf => RGBColor(70, 150, 190),
        Make::Released => RGBColor(30, 140, 110),
        Make::Stunnel4 => RGBColor(200, 120, 20),
        Make::Plain => RGBColor(110, 110, 110),
    }
}

/// Where the goal lies on the figure's own scale, for each thing that it is measured by.
fn goals(figure: &Figure, values: &[Value]) -> Vec<f64> {
    match figure.goal(Make::Pskgate) {
        Goal::Above(pairs) | Goal::Below(pairs) => pairs
            .iter()
            .filter_map(|(make, factor)| Some(seen(values, figure.name, *make)?.median * factor))
            .collect(),
        Goal::AtMost(at) | Goal::AtLeast(at) => vec![at],
        Goal::Told => Vec::new(),
    }
}

pub fn draw(figure: &Figure, values: &[Value], file: &Path) {
    let rows: Vec<(Make, FigureSummary)> = Make::COLUMNS
        .into_iter()
        .filter_map(|make| Some((make, seen(values, figure.name, make)?)))
        .collect();
    let goals = goals(figure, values);
    let most = rows.iter().map(|(_, seen)| seen.most).chain(goals.iter().copied());
    let most = most.fold(0.0, f64::max) * 1.08;
    let count = u32::try_from(rows.len()).expect("a few rows");
    let root = SVGBackend::new(file, (WIDTH, 78 + ROW * count)).into_drawing_area();
    root.fill(&WHITE).expect("drawn");
    let mut chart = ChartBuilder::on(&root)
        .caption(
            format!("{} ({})", figure.title, figure.unit).replace(" ()", ""),
            ("sans-serif", 15),
        )
        .margin(8)
        .margin_left(96)
        .margin_right(24)
        .x_label_area_size(26)
        .build_cartesian_2d(0.0..most, 0.0..f64::from(count))
        .expect("a chart");
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .light_line_style(TRANSPARENT)
        .label_style(("sans-serif", 12, &INK))
        .draw()
        .expect("a scale");
    for at in goals {
        let line = (0..20).map(|n| f64::from(n) * f64::from(count) / 20.0).map(|y| {
            PathElement::new(vec![(at, y), (at, y + f64::from(count) / 40.0)], GOAL.stroke_width(1))
        });
        chart.draw_series(line).expect("a goal");
    }
    for (place, (make, seen)) in (0..).zip(rows.iter().rev()) {
        let y = f64::from(place) + 0.5;
        let colour = colour(*make);
        let middle = PathElement::new(
            vec![(seen.median, y - 0.32), (seen.median, y + 0.32)],
            colour.stroke_width(3),
        );
        chart.draw_series([middle]).expect("a median");
        let dots =
            seen.all.iter().map(|value| Circle::new((*value, y), 3, colour.mix(0.55).filled()));
        chart.draw_series(dots).expect("its rounds");
        let (_, height) = chart.plotting_area().dim_in_pixel();
        let down = f64::from(height) * (1.0 - y / f64::from(count)) + 34.0;
        let name = Text::new(
            make.name(),
            (10, down as i32 - 6),
            ("sans-serif", 13).into_font().color(&colour),
        );
        root.draw(&name).expect("a name");
    }
    root.present().expect("written");
}
