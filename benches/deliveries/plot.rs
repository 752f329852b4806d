//! Bars on a logarithmic scale, as SVG.

use std::{fmt::Write, time::Duration};

/// A row that is drawn: name, label, colour.
pub(crate) type Bar<'a> = (&'a str, &'a str, &'a str);

const WIDTH: f64 = 960.0;
const LEFT: f64 = 300.0;
const BAR: f64 = 15.0;
const GAP: f64 = 22.0;
const TOP: f64 = 64.0;

/// Groups of bars: the title of each, and wall times by name.
pub(crate) fn svg(
    heading: &str,
    rows: &[Bar<'_>],
    groups: &[(&str, Vec<(&str, Duration)>)],
) -> String {
    let times = groups
        .iter()
        .flat_map(|(_, bars)| bars)
        .filter(|(name, _)| rows.iter().any(|(row, ..)| row == name));
    let times: Vec<f64> = times
        .map(|(_, time)| time.as_secs_f64().max(0.001))
        .collect();
    let least = times
        .iter()
        .copied()
        .fold(f64::MAX, f64::min)
        .log10()
        .floor();
    let most = times.iter().copied().fold(0.0, f64::max).log10().ceil();
    let x = |seconds: f64| {
        let share = (seconds.max(0.001).log10() - least) / (most - least);
        LEFT + share * (WIDTH - LEFT - 70.0)
    };
    let mut body = String::new();
    let mut y = TOP;
    for (title, bars) in groups {
        let drawn = rows.iter().filter_map(|(name, label, colour)| {
            let (_, time) = bars.iter().find(|(bar, _)| bar == name)?;
            Some((label, colour, time.as_secs_f64()))
        });
        let drawn: Vec<_> = drawn.collect();
        let middle = y + BAR * f64::from(u32::try_from(drawn.len()).unwrap()) / 2.0;
        let title = title.replace('&', "&amp;").replace('<', "&lt;");
        line(
            &mut body,
            &format!(
                r#"<text x="{:.0}" y="{:.0}" text-anchor="end" dominant-baseline="middle">{title}</text>"#,
                LEFT - 12.0,
                middle
            ),
        );
        for (label, colour, seconds) in drawn {
            let (end, height) = (x(seconds), BAR - 2.0);
            line(
                &mut body,
                &format!(
                    r#"<rect x="{LEFT}" y="{y:.0}" width="{:.1}" height="{height}" fill="{colour}"><title>{label}: {seconds:.2} s</title></rect>"#,
                    end - LEFT
                ),
            );
            line(
                &mut body,
                &format!(
                    r#"<text x="{:.1}" y="{:.1}" class="small" dominant-baseline="middle">{seconds:.2} s</text>"#,
                    end + 4.0,
                    y + height / 2.0 + 0.5
                ),
            );
            y += BAR;
        }
        y += GAP;
    }
    let mut grid = String::new();
    let mut decade = least;
    while decade <= most {
        let (at, seconds) = (x(10f64.powf(decade)), 10f64.powf(decade));
        line(
            &mut grid,
            &format!(
                r##"<line x1="{at:.1}" y1="{:.0}" x2="{at:.1}" y2="{:.0}" stroke="#ddd"/>"##,
                TOP - 10.0,
                y - GAP + 4.0
            ),
        );
        line(
            &mut grid,
            &format!(
                r#"<text x="{at:.1}" y="{:.0}" text-anchor="middle" class="small">{seconds} s</text>"#,
                y - GAP + 18.0
            ),
        );
        decade += 1.0;
    }
    let mut legend = String::new();
    for (n, (_, label, colour)) in (0u32..).zip(rows) {
        let at = 20.0 + f64::from(n) * 155.0;
        line(
            &mut legend,
            &format!(
                r#"<rect x="{at}" y="34" width="11" height="11" fill="{colour}"/><text x="{}" y="44" class="small">{label}</text>"#,
                at + 16.0
            ),
        );
    }
    let height = y + 10.0;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" width="{WIDTH}" height="{height:.0}" font-family="sans-serif" font-size="13">
<style>.small {{ font-size: 11px; fill: #444 }}</style>
<rect width="100%" height="100%" fill="#fff"/>
<text x="20" y="22" font-size="15">{heading}</text>
{legend}{grid}{body}</svg>
"##
    )
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a string takes everything");
}
