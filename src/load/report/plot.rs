//! Lines over an axis, as SVG with HTML labels: the picture stretches with the page, the letters do not.

use std::fmt::Write;

/// Text as it may stand in HTML, in an attribute too.
pub(in crate::load) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(letter),
        }
    }
    safe
}

/// A scale with its labels.
#[derive(Debug, Clone)]
pub(in crate::load) struct Axis {
    logarithmic: bool,
    from: f64,
    to: f64,
    /// Values with what is written beside them.
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 to a round number that is not below `greatest`; about `many` labels.
    pub(in crate::load) fn linear(greatest: f64, many: f64, label: impl Fn(f64) -> String) -> Self {
        let rough = (greatest / many).max(1e-9);
        let magnitude = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * magnitude).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * magnitude);
        let steps = (greatest / step - 1e-9).ceil().max(1.0) as u32;
        let ticks = (0..=steps).map(|n| f64::from(n) * step).map(|value| (value, label(value))).collect();
        Self { logarithmic: false, from: 0.0, to: f64::from(steps) * step, ticks }
    }

    /// Whole powers of ten around the values, with labels between them too if there are few.
    pub(in crate::load) fn logarithmic(least: f64, greatest: f64, label: impl Fn(f64) -> String) -> Self {
        let first = least.max(1e-6).log10().floor() as i32;
        let last = (greatest.max(least).max(1e-6).log10().ceil() as i32).max(first + 1);
        let between: &[f64] = if last - first <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let to = 10_f64.powi(last);
        let values = (first..=last).flat_map(|power| between.iter().map(move |m| m * 10_f64.powi(power)));
        let ticks = values.filter(|value| *value <= to * 1.001).map(|value| (value, label(value))).collect();
        Self { logarithmic: true, from: 10_f64.powi(first), to, ticks }
    }

    /// An axis whose labels are given, from 0.
    pub(in crate::load) fn labelled(to: f64, ticks: Vec<(f64, String)>) -> Self {
        Self { logarithmic: false, from: 0.0, to, ticks }
    }

    /// The same axis that ends where the values do.
    #[must_use]
    pub(in crate::load) fn ending_at(mut self, to: f64) -> Self {
        self.ticks.retain(|(value, _)| *value <= to);
        Self { to, ..self }
    }

    /// Where a value lies, 0 at the beginning and 1000 at the end.
    fn place(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(self.from) / self.from).log10() / (self.to / self.from).log10()
        } else {
            (value - self.from) / (self.to - self.from).max(1e-9)
        };
        share.clamp(0.0, 1.0) * 1000.0
    }
}

/// One line.
#[derive(Debug, Clone)]
pub(in crate::load) struct Line {
    pub name: &'static str,
    /// The class that gives it its colour.
    pub class: &'static str,
    /// Points by x; a gap where there is no y.
    pub points: Vec<(f64, Option<f64>)>,
    /// Whether the space below it is tinted.
    pub filled: bool,
}

/// What is told of a stretch of the x axis when a pointer rests on it.
#[derive(Debug, Clone)]
pub(in crate::load) struct Hint {
    pub from: f64,
    pub to: f64,
    pub text: String,
}

/// A picture with its axes.
#[derive(Debug, Clone)]
pub(in crate::load) struct Plot {
    pub title: &'static str,
    /// What the axes are, and in which units.
    pub note: String,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
    pub hints: Vec<Hint>,
    /// Places on the x axis where something begins, with its name.
    pub marks: Vec<(f64, String)>,
}

impl Plot {
    pub(in crate::load) fn html(&self) -> String {
        let mut out = String::new();
        let _ = write!(out, "<figure><figcaption><b>{}</b> <span>{}</span>", self.title, escaped(&self.note));
        out.push_str("<span class=\"legend\">");
        for line in &self.lines {
            let _ = write!(out, "<i class=\"{}\"></i>{} ", line.class, escaped(line.name));
        }
        out.push_str("</span></figcaption><div class=\"plot\">");
        for (value, label) in &self.y.ticks {
            let top = 100.0 - self.y.place(*value) / 10.0;
            let _ = write!(out, "<span class=\"y\" style=\"top:{top:.2}%\">{}</span>", escaped(label));
        }
        for (value, label) in &self.x.ticks {
            let left = self.x.place(*value) / 10.0;
            let _ = write!(out, "<span class=\"x\" style=\"left:{left:.2}%\">{}</span>", escaped(label));
        }
        for (which, (value, label)) in self.marks.iter().enumerate() {
            let left = self.x.place(*value) / 10.0;
            let end = self.marks.get(which + 1).map_or(100.0, |(next, _)| self.x.place(*next) / 10.0);
            let style = format!("left:{left:.2}%;max-width:{:.2}%", end - left);
            let _ = write!(out, "<span class=\"mark\" style=\"{style}\">{}</span>", escaped(label));
        }
        self.svg(&mut out);
        out.push_str("</div></figure>\n");
        out
    }

    fn svg(&self, out: &mut String) {
        let _ = write!(
            out,
            "<svg viewBox=\"0 0 1000 1000\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">",
            escaped(&format!("{}, {}", self.title, self.note))
        );
        for (value, _) in &self.y.ticks {
            let y = 1000.0 - self.y.place(*value);
            let _ = write!(out, "<path class=\"grid\" d=\"M0 {y:.1}H1000\"/>");
        }
        for (value, _) in &self.marks {
            let _ = write!(out, "<path class=\"phase\" d=\"M{:.1} 0V1000\"/>", self.x.place(*value));
        }
        for line in &self.lines {
            self.line(line, out);
        }
        for hint in &self.hints {
            let (from, to) = (self.x.place(hint.from), self.x.place(hint.to));
            let _ = write!(
                out,
                "<rect class=\"hint\" x=\"{from:.2}\" y=\"0\" width=\"{:.2}\" height=\"1000\"><title>{}</title></rect>",
                to - from,
                escaped(&hint.text)
            );
        }
        out.push_str("</svg>");
    }

    fn line(&self, line: &Line, out: &mut String) {
        // Each stretch without a gap: a dot's worth of line where a point stands alone.
        for stretch in line.points.split(|(_, y)| y.is_none()) {
            let places: Vec<(f64, f64)> =
                stretch.iter().filter_map(|(x, y)| Some((self.x.place(*x), 1000.0 - self.y.place((*y)?)))).collect();
            let (Some((first, _)), Some((last, end))) = (places.first(), places.last()) else { continue };
            let mut path: String = String::new();
            for (x, y) in &places {
                let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { "M" } else { "L" });
            }
            if line.filled {
                let _ = write!(out, "<path class=\"{} area\" d=\"{path}V1000H{first:.1}Z\"/>", line.class);
            }
            if places.len() == 1 {
                let _ = write!(path, "M{:.1} {end:.1}H{:.1}", last - 2.0, last + 2.0);
            }
            let _ = write!(out, "<path class=\"{}\" d=\"{path}\"/>", line.class);
        }
    }
}
