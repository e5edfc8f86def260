//! A chart: for each row of which more is better, how far each stack gets of what the kernel's own path does.

use std::fmt::Write as _;

use crate::peers::PEERS;
use crate::report::number;
use crate::results::{Metric, Results};
use crate::rows::{ROWS, Row};

/// Who is drawn, and in which colours on light and dark.
const DRAWN: &[(&str, &str, &str)] = &[
    ("pontoon", "#0a7d55", "#2ecc8f"),
    ("slirp4netns", "#b8860b", "#e0b040"),
    ("pasta", "#5566bb", "#8fa0f0"),
    ("ovs", "#9a5aa0", "#c58acb"),
    ("ovs-tso", "#a0405a", "#e07a95"),
];

const WIDTH: f64 = 860.0;
/// Where bars begin and end.
const LEFT: f64 = 268.0;
const RIGHT: f64 = 800.0;
const TOP: f64 = 78.0;
const BAR: f64 = 10.5;
const GAP: f64 = 11.0;
/// The scale, in parts of the kernel's figure.
const LEAST: f64 = 0.003;
const MOST: f64 = 3.0;
const MARKS: &[(f64, &str)] = &[
    (0.01, "1 %"),
    (0.1, "10 %"),
    (0.5, "50 %"),
    (1.0, "kernel"),
    (2.0, "200 %"),
];

/// One row's bars: stack, part of the kernel's figure, figure.
struct Bars {
    row: &'static Row,
    kernel: f64,
    all: Vec<(usize, f64, f64)>,
}

/// The chart of a run.
pub(crate) fn chart(results: &Results, how: &str) -> String {
    let rows: Vec<Bars> = ROWS
        .iter()
        .filter(|r| r.more_is_better())
        .filter_map(|row| {
            let kernel = results
                .median(row.name, "kernel", Metric::Value)
                .filter(|&k| k > 0.0)?;
            let all: Vec<_> = DRAWN
                .iter()
                .enumerate()
                .filter_map(|(i, (peer, ..))| {
                    let value = results.median(row.name, peer, Metric::Value)?;
                    Some((i, value / kernel, value))
                })
                .collect();
            // A ratio of rates is no rate.
            let drawn = !all.is_empty() && row.unit != "ratio" && !row.unit.is_empty();
            drawn.then_some(Bars { row, kernel, all })
        })
        .collect();
    let height = rows.iter().map(|r| r.all.len() as f64 * BAR + GAP).sum::<f64>() + TOP + 34.0;
    let mut svg = head(height, how);
    legend(&mut svg, results);
    let bottom = height - 30.0;
    for &(at, text) in MARKS {
        let x = x(at);
        let class = if at == 1.0 { "kernel" } else { "mark" };
        let _ = writeln!(
            svg,
            r#"<line class="{class}" x1="{x:.1}" y1="{:.1}" x2="{x:.1}" y2="{bottom:.1}"/>
<text class="small" text-anchor="middle" x="{x:.1}" y="{:.1}">{text}</text>"#,
            TOP - 6.0,
            bottom + 14.0,
        );
    }
    let mut y = TOP;
    for bars in &rows {
        draw(&mut svg, bars, y);
        y += bars.all.len() as f64 * BAR + GAP;
    }
    svg += "</svg>\n";
    svg
}

fn x(part: f64) -> f64 {
    let part = part.clamp(LEAST, MOST);
    LEFT + (RIGHT - LEFT) * (part / LEAST).ln() / (MOST / LEAST).ln()
}

fn head(height: f64, how: &str) -> String {
    let (mut light, mut dark) = (String::new(), String::new());
    for (i, (_, l, d)) in DRAWN.iter().enumerate() {
        let _ = write!(light, ".c{i}{{fill:{l}}}");
        let _ = write!(dark, ".c{i}{{fill:{d}}}");
    }
    // The background is drawn, so that whatever page it is on the text can be read.
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0}" viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-labelledby="t d">
<title id="t">Pontoon beside other stacks, as parts of what the kernel does</title>
<desc id="d">{how}</desc>
<style>
text{{font:12px system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;fill:#1f2328}}
.title{{font-size:15px;font-weight:600}}.small{{font-size:10.5px;fill:#59636e}}.value{{font-size:9px;fill:#59636e;stroke:#fff;stroke-width:2.5px;paint-order:stroke}}
.page{{fill:#fff;stroke:#d1d9e0}}.mark{{stroke:#d1d9e0}}.kernel{{stroke:#59636e;stroke-dasharray:3 2}}{light}
@media (prefers-color-scheme:dark){{text{{fill:#e6edf3}}.small,.value{{fill:#9aa4af}}.value{{stroke:#0d1117}}.page{{fill:#0d1117;stroke:#3d444d}}.mark{{stroke:#2a313a}}.kernel{{stroke:#9aa4af}}{dark}}}
</style>
<rect class="page" x="0.5" y="0.5" width="{:.1}" height="{:.1}" rx="6"/>
<text class="title" x="16" y="26">Throughput as part of the kernel’s own path (log scale; further right is better)</text>
<text class="small" x="16" y="43">{how}</text>
"##,
        WIDTH - 1.0,
        height - 1.0,
    )
}

fn legend(svg: &mut String, results: &Results) {
    let mut x = 16.0;
    for (i, (peer, ..)) in DRAWN.iter().enumerate() {
        if PEERS.iter().any(|p| p.name == *peer) && results.has_peer(peer) {
            let _ = writeln!(
                svg,
                r#"<rect class="c{i}" x="{x:.0}" y="53" width="10" height="10" rx="2"/><text class="small" x="{:.0}" y="62">{peer}</text>"#,
                x + 14.0,
            );
            x += 34.0 + peer.len() as f64 * 6.2;
        }
    }
}

fn draw(svg: &mut String, bars: &Bars, top: f64) {
    let middle = top + bars.all.len() as f64 * BAR / 2.0;
    let unit = if bars.row.unit == "/s" {
        "/s".to_owned()
    } else {
        format!(" {}", bars.row.unit)
    };
    let _ = writeln!(
        svg,
        r#"<text text-anchor="end" x="{:.0}" y="{:.1}">{}</text>
<text class="value" text-anchor="end" x="{:.0}" y="{:.1}">kernel {}{unit}</text>"#,
        LEFT - 8.0,
        middle + 1.0,
        bars.row.title,
        LEFT - 8.0,
        middle + 11.0,
        number(bars.kernel),
    );
    for (n, &(class, part, value)) in bars.all.iter().enumerate() {
        let (y, end) = (top + n as f64 * BAR, x(part));
        let _ = writeln!(
            svg,
            r#"<rect class="c{class}" x="{LEFT}" y="{y:.1}" width="{:.1}" height="{:.1}" rx="1"/><text class="value" x="{:.1}" y="{:.1}">{}</text>"#,
            (end - LEFT).max(1.0),
            BAR - 1.0,
            end + 4.0,
            y + BAR - 2.0,
            number(value),
        );
    }
}
