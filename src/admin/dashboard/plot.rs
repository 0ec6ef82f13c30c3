//! A plot of the last hour: a bar for each minute, up for what went well and down for what failed, and the same in words.

use super::history::{MINUTES, Minute};
use super::words::number;
use crate::clock::Timestamp;

/// Of the drawing, in units of its own; the page stretches it.
pub const WIDTH: u64 = 600;
pub const HEIGHT: u64 = 100;
const STEP: u64 = WIDTH / MINUTES as u64;

/// What a page needs to draw one.
#[derive(Debug)]
pub struct Plot {
    /// For the ids of its parts.
    pub name: &'static str,
    pub title: &'static str,
    /// The whole of it in words.
    pub said: String,
    pub up: &'static str,
    pub down: &'static str,
    pub bars: Vec<Bar>,
    /// Where up and down meet.
    pub zero: u64,
    pub most: String,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Bar {
    pub x: u64,
    pub y: u64,
    pub height: u64,
    pub is_down: bool,
}

pub fn traffic(minutes: &[Minute]) -> Plot {
    let values = values(minutes, |minute| (minute.answered + minute.refused, minute.failed));
    let refused: u64 = minutes.iter().map(|minute| minute.refused).sum();
    let (up, down) = ("answered below 500", "answered with 5xx");
    let mut said = say("request", &values, minutes, "answered with 5xx");
    if refused > 0 {
        said = format!("{said} {} refused with 4xx.", number(refused));
    }
    draw("traffic", "Requests a minute", said, (up, down), &values)
}

pub fn refreshes(minutes: &[Minute]) -> Plot {
    let values = values(minutes, |minute| (minute.refreshed, minute.refresh_failed));
    let said = say("refresh", &values, minutes, "failed");
    draw("refreshes", "Refreshes a minute", said, ("new tokens", "failed"), &values)
}

fn values(minutes: &[Minute], of: fn(&Minute) -> (u64, u64)) -> Vec<(u64, u64)> {
    minutes.iter().map(of).collect()
}

fn say(what: &str, values: &[(u64, u64)], minutes: &[Minute], failed_how: &str) -> String {
    let (went_well, failed): (u64, u64) = values.iter().fold((0, 0), |sum, value| (sum.0 + value.0, sum.1 + value.1));
    let plural = if what == "refresh" { "refreshes".to_owned() } else { format!("{what}s") };
    let all = went_well + failed;
    if all == 0 {
        return format!("No {plural} in the last hour.");
    }
    let things = if all == 1 { what } else { &plural };
    let busiest = values.iter().zip(minutes).max_by_key(|((up, down), _)| up + down);
    let busiest = busiest.map_or(String::new(), |((up, down), minute)| {
        format!(" The most in a minute: {} at {}.", number(up + down), clock(minute.from))
    });
    format!("{} {things} in the last hour, {} {failed_how}.{busiest}", number(all), number(failed))
}

/// `14:05 UTC`
fn clock(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(11..16).map_or_else(|| text.clone(), |time| format!("{time} UTC"))
}

fn draw(
    name: &'static str,
    title: &'static str,
    said: String,
    (up, down): (&'static str, &'static str),
    values: &[(u64, u64)],
) -> Plot {
    let highest = values.iter().map(|value| value.0).max().unwrap_or(0);
    let lowest = values.iter().map(|value| value.1).max().unwrap_or(0);
    let scale = |count: u64| if count == 0 { 0 } else { (count * HEIGHT / (highest + lowest)).clamp(2, HEIGHT) };
    let zero = HEIGHT - if lowest == 0 { 0 } else { scale(lowest) };
    let first = MINUTES - values.len().min(MINUTES);
    let mut bars = Vec::new();
    for (place, (up, down)) in values.iter().enumerate() {
        let x = (first + place) as u64 * STEP;
        let height = scale(*up).min(zero);
        if height > 0 {
            bars.push(Bar { x, y: zero - height, height, is_down: false });
        }
        let height = scale(*down);
        if height > 0 {
            bars.push(Bar { x, y: zero, height, is_down: true });
        }
    }
    let most = number(values.iter().map(|(up, down)| *up.max(down)).max().unwrap_or(0));
    Plot { name, title, said, up, down, bars, zero, most }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(at: i64, answered: u64, failed: u64) -> Minute {
        let from = Timestamp::from_secs(1_790_000_000 + 60 * at);
        Minute { from, answered, refused: 1, failed, refreshed: answered, refresh_failed: failed }
    }

    #[test]
    fn a_plot_stays_in_its_frame_and_says_the_same_in_words() {
        let minutes: Vec<_> =
            (0..60).map(|at| minute(at, 10 * u64::try_from(at).unwrap(), u64::from(at == 7) * 100)).collect();
        let plot = traffic(&minutes);
        for bar in &plot.bars {
            assert!(bar.x + STEP <= WIDTH && bar.y + bar.height <= HEIGHT && bar.height >= 1, "{bar:?}");
            assert_eq!(bar.is_down, bar.y >= plot.zero, "{bar:?}");
        }
        assert_eq!(plot.bars.iter().filter(|bar| bar.is_down).count(), 1);
        assert_eq!(
            plot.said,
            "17,860 requests in the last hour, 100 answered with 5xx. The most in a minute: 591 at 15:12 UTC. 60 refused \
             with 4xx."
        );
        let plot = refreshes(&minutes[..2]);
        assert_eq!(plot.said, "10 refreshes in the last hour, 0 failed. The most in a minute: 10 at 14:14 UTC.");
        assert_eq!(plot.bars, [Bar { x: WIDTH - STEP, y: 0, height: HEIGHT, is_down: false }]);
        assert_eq!(plot.zero, HEIGHT);
    }

    #[test]
    fn nothing_is_a_plot_too() {
        let plot = traffic(&[]);
        assert_eq!((plot.bars.len(), &*plot.said), (0, "No requests in the last hour."));
    }
}
