//! `dossier top`: a running host at a glance, again and again, or once. Asks the admin address and nothing else.

mod cells;
mod page;
mod readings;
mod screen;

use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::{Frame, Terminal};
use tokio::time::{Instant, MissedTickBehavior};

use self::page::page;
use self::readings::{History, Reading};
use self::screen::{Screen, Wish};
use super::host::Which;
use super::interrupted;
use super::output::{Out, printable};
use crate::admin::{AskError, Client};

/// How long `--once` waits between two readings, and for how many: the host measures its queue every two seconds.
const ONCE_PAUSE: Duration = Duration::from_millis(500);
const ONCE_READINGS: usize = 8;

/// Over how many seconds its rates are taken, at least.
const ONCE_OVER: f64 = 2.0;

/// How long `--once` waits for a host that is starting: as long as it may have plugins to compile.
const START: Duration = Duration::from_secs(60);

/// How wide lines are that go to no terminal.
const PLAIN: usize = 120;

/// Which host, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Keys: q, Esc or Ctrl-C end it; the arrow keys, Page Up and Page Down scroll.

Examples:
  dossier top                              The host that the configuration here is of
  dossier top --address 10.0.0.7:9464      Another, with DOSSIER_ADMIN_TOKEN in the environment
  dossier top --once                       One picture as text
  dossier top --once --json | jq '.rates'  And for programs")]
pub struct Arguments {
    /// Show it once and end
    #[arg(long)]
    once: bool,
    /// One JSON object: what the admin API says, and the rates
    #[arg(long, requires = "once")]
    json: bool,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    #[command(flatten)]
    which: Which,
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.2..=3_600.0).contains(seconds));
    seconds.ok_or_else(|| "seconds from 0.2 to 3600, as in --interval 5".to_owned())
}

/// Shows the host until somebody has seen enough.
///
/// # Errors
/// No host answers at the start, or the terminal cannot be written to.
pub async fn top<W: Write>(file: &Path, arguments: &Arguments, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    let client = arguments.which.client(file)?;
    if arguments.once {
        return once(&client, arguments.json, out).await;
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        bail!("dossier top needs a terminal; dossier top --once shows one picture, and --once --json is for programs");
    }
    let mut view = View::default();
    match Reading::of(&client).await {
        Ok(first) => view.history.add(first),
        // It will be there, which is worth waiting for.
        Err(error @ AskError::Starting { .. }) => view.trouble = Some((error, Instant::now())),
        Err(error) => return Err(error.into()),
    }
    watch(&client, view, Duration::from_secs_f64(arguments.interval)).await?;
    Ok(ExitCode::SUCCESS)
}

async fn once<W: Write>(client: &Client, json: bool, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    let mut history = History::default();
    let began = Instant::now();
    let mut first = Reading::of(client).await;
    while matches!(first, Err(AskError::Starting { .. })) && began.elapsed() < START {
        tokio::time::sleep(ONCE_PAUSE).await;
        first = Reading::of(client).await;
    }
    history.add(first?);
    for place in 1..=ONCE_READINGS {
        if place > 1 {
            history.add(Reading::of(client).await?);
        }
        if history.is_telling(ONCE_OVER) || place == ONCE_READINGS {
            break;
        }
        tokio::time::sleep(ONCE_PAUSE).await;
    }
    let (reading, rates) = (history.last().context("a host was read")?, history.rates());
    if json {
        let mut all = serde_json::to_value(reading)?;
        all["rates"] = serde_json::to_value(rates)?;
        writeln!(out, "{}", super::output::one_line(&all.to_string()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let terminal = console::Term::stdout();
    let width = if terminal.is_term() { usize::from(terminal.size().1) } else { PLAIN };
    for line in page(&client.at(), reading, rates.as_ref(), true, width) {
        writeln!(out, "{}", line.to_string().trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is on the screen.
#[derive(Default)]
struct View {
    history: History,
    /// Why the host does not answer any more, and since when.
    trouble: Option<(AskError, Instant)>,
    /// How many lines are scrolled past.
    scrolled: usize,
    /// How many lines there is room for.
    room: usize,
}

async fn watch(client: &Client, mut view: View, interval: Duration) -> anyhow::Result<()> {
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    screen::survive_panics();
    crossterm::terminal::enable_raw_mode().context("the terminal cannot be made a screen")?;
    let mut terminal = Terminal::new(Screen::enter(io::stdout(), colours)?)?;
    let mut wishes = screen::wishes();
    let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = None;
    let over = interrupted();
    tokio::pin!(over);
    loop {
        draw(&mut terminal, client, &mut view)?;
        tokio::select! {
            () = &mut over => return Ok(()),
            wish = wishes.recv() => match wish {
                None | Some(Wish::Quit) => return Ok(()),
                Some(Wish::Scroll(by)) => view.scrolled = view.scrolled.saturating_add_signed(by as isize),
                // One line stays, so that nobody loses the place.
                Some(Wish::Page(by)) => {
                    let page = view.room.saturating_sub(1).max(1) as isize;
                    view.scrolled = view.scrolled.saturating_add_signed(by as isize * page);
                }
                Some(Wish::Top) => view.scrolled = 0,
                Some(Wish::Resized) => {}
            },
            // A host that is slow to answer must not make the keys slow.
            _ = ticks.tick(), if asked.is_none() => asked = Some(Box::pin(Reading::of(client))),
            reading = async { match &mut asked { Some(asked) => asked.await, None => std::future::pending().await } } => {
                asked = None;
                match reading {
                    Ok(reading) => {
                        view.trouble = None;
                        view.history.add(reading);
                    }
                    Err(error) => {
                        let since = view.trouble.take().map_or_else(Instant::now, |(_, since)| since);
                        view.trouble = Some((error, since));
                    }
                }
            }
        }
    }
}

fn draw<W: Write>(terminal: &mut Terminal<Screen<W>>, client: &Client, view: &mut View) -> io::Result<()> {
    let now = jiff::Timestamp::now().strftime("%H:%M:%S UTC").to_string();
    terminal.draw(|frame| paint(frame, client, view, &now)).map(drop)
}

fn paint(frame: &mut Frame<'_>, client: &Client, view: &mut View, now: &str) {
    let area = frame.area();
    let answers = view.trouble.is_none();
    let lines = match view.history.last() {
        Some(reading) => page(&client.at(), reading, view.history.rates().as_ref(), answers, usize::from(area.width)),
        None => page::none_yet(&client.at(), usize::from(area.width)),
    };
    // The last line is for what is said of the screen itself.
    let room = usize::from(area.height.saturating_sub(1));
    view.room = room;
    view.scrolled = view.scrolled.min(lines.len().saturating_sub(room));
    let below = lines.len().saturating_sub(room + view.scrolled);
    for (row, line) in (0..).zip(lines.into_iter().skip(view.scrolled).take(room)) {
        frame.render_widget(line, Rect { x: area.x, y: area.y + row, width: area.width, height: 1 });
    }
    let last = Rect { y: area.y + area.height.saturating_sub(1), height: area.height.min(1), ..area };
    frame.render_widget(footer(view, now, below), last);
}

/// The last line: what is wrong with what is shown, or how to see more of it.
fn footer(view: &View, now: &str, below: usize) -> Line<'static> {
    if let Some((error, since)) = &view.trouble {
        let since = super::output::duration(since.elapsed());
        let old = if view.history.last().is_some() { format!("old by {since}: ") } else { String::new() };
        let text = format!("{old}{}", printable(&error.to_string()));
        return Line::styled(text, Style::new().fg(Color::Red).add_modifier(Modifier::BOLD));
    }
    let more = if below > 0 { format!("  ↓ {below} more") } else { String::new() };
    Line::from(vec![Span::styled(format!("{now}  q ends{more}"), Style::new().add_modifier(Modifier::DIM))])
}

#[cfg(test)]
mod tests;
