//! The terminal while it is a screen: what is drawn, which keys are pressed, and how it is given back, whatever happens.
//!
//! ratatui brings a backend for crossterm of its own, but with crossterm's default features; this one draws all that is needed.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Color as Shade, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{self, Clear, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{execute, queue};
use ratatui::backend::{Backend, ClearType, WindowSize};
use ratatui::buffer::Cell;
use ratatui::layout::{Position, Size};
use ratatui::style::{Color, Modifier};
use tokio::sync::mpsc;

/// Whether the terminal is a screen, so that a panic knows whether there is something to give back.
static IS_SCREEN: AtomicBool = AtomicBool::new(false);

/// What somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To end it.
    Quit,
    /// To see what is further down by so many lines, or up.
    Scroll(i32),
    /// To see the top.
    Top,
    /// Nothing, but the terminal has another size.
    Resized,
}

impl Wish {
    /// What an event of the terminal means; none when it means nothing.
    fn of(event: &Event) -> Option<Self> {
        let key = match event {
            Event::Resize(..) => return Some(Self::Resized),
            Event::Key(key @ KeyEvent { kind: KeyEventKind::Press | KeyEventKind::Repeat, .. }) => key,
            _ => return None,
        };
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Self::Quit),
            KeyCode::Char('q') | KeyCode::Esc => Some(Self::Quit),
            KeyCode::Down | KeyCode::Char('j') => Some(Self::Scroll(1)),
            KeyCode::Up | KeyCode::Char('k') => Some(Self::Scroll(-1)),
            KeyCode::PageDown | KeyCode::Char(' ') => Some(Self::Scroll(10)),
            KeyCode::PageUp => Some(Self::Scroll(-10)),
            KeyCode::Home | KeyCode::Char('g') => Some(Self::Top),
            _ => None,
        }
    }
}

/// What is wished for, as it comes; the channel ends when the terminal does.
pub fn wishes() -> mpsc::Receiver<Wish> {
    let (sender, wishes) = mpsc::channel(16);
    // It waits for keys and can be told nothing else: it ends with the process, or with the first key that nobody wants.
    std::thread::spawn(move || {
        while let Ok(event) = crossterm::event::read() {
            if let Some(wish) = Wish::of(&event)
                && sender.blocking_send(wish).is_err()
            {
                break;
            }
        }
    });
    wishes
}

/// A terminal that is a screen until this is dropped.
pub struct Screen<W: Write> {
    out: W,
    colours: bool,
}

impl<W: Write> Screen<W> {
    /// Makes the terminal a screen; without colours where somebody wants none.
    ///
    /// # Errors
    /// The terminal cannot be written to.
    pub fn enter(out: W, colours: bool) -> io::Result<Self> {
        IS_SCREEN.store(true, Ordering::SeqCst);
        // Made first, so that it is given back when only half of it succeeds.
        let mut screen = Self { out, colours };
        execute!(screen.out, EnterAlternateScreen, Hide)?;
        Ok(screen)
    }
}

impl<W: Write> Drop for Screen<W> {
    fn drop(&mut self) {
        give_back(&mut self.out);
    }
}

/// Makes the terminal what it was; once.
fn give_back(out: &mut impl Write) {
    if IS_SCREEN.swap(false, Ordering::SeqCst) {
        // A terminal that is gone wants nothing back.
        let _ = execute!(out, ResetColor, SetAttribute(Attribute::Reset), LeaveAlternateScreen, Show);
        let _ = terminal::disable_raw_mode();
    }
}

/// Gives the terminal back before a panic is told: what is said on a screen is gone with it.
pub fn survive_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        give_back(&mut io::stdout());
        before(panic);
    }));
}

impl<W: Write> Backend for Screen<W> {
    type Error = io::Error;

    fn draw<'a, I: Iterator<Item = (u16, u16, &'a Cell)>>(&mut self, content: I) -> io::Result<()> {
        let (mut colour, mut modifier) = (Color::Reset, Modifier::empty());
        let mut last: Option<(u16, u16)> = None;
        for (x, y, cell) in content {
            if last.is_none_or(|(before, line)| (before + 1, line) != (x, y)) {
                queue!(self.out, MoveTo(x, y))?;
            }
            last = Some((x, y));
            let wanted = if self.colours { cell.fg } else { Color::Reset };
            if (wanted, cell.modifier) != (colour, modifier) {
                queue!(self.out, SetAttribute(Attribute::Reset))?;
                for (is, attribute) in [(Modifier::BOLD, Attribute::Bold), (Modifier::DIM, Attribute::Dim)] {
                    if cell.modifier.contains(is) {
                        queue!(self.out, SetAttribute(attribute))?;
                    }
                }
                if let Some(shade) = shade(wanted) {
                    queue!(self.out, SetForegroundColor(shade))?;
                }
                (colour, modifier) = (wanted, cell.modifier);
            }
            queue!(self.out, Print(cell.symbol()))?;
        }
        queue!(self.out, SetAttribute(Attribute::Reset))
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        execute!(self.out, Hide)
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        execute!(self.out, Show)
    }

    fn get_cursor_position(&mut self) -> io::Result<Position> {
        // It is hidden, and nothing depends on where.
        Ok(Position::ORIGIN)
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        let Position { x, y } = position.into();
        execute!(self.out, MoveTo(x, y))
    }

    fn clear(&mut self) -> io::Result<()> {
        self.clear_region(ClearType::All)
    }

    fn clear_region(&mut self, which: ClearType) -> io::Result<()> {
        let which = match which {
            ClearType::All => terminal::ClearType::All,
            ClearType::AfterCursor => terminal::ClearType::FromCursorDown,
            ClearType::BeforeCursor => terminal::ClearType::FromCursorUp,
            ClearType::CurrentLine => terminal::ClearType::CurrentLine,
            ClearType::UntilNewLine => terminal::ClearType::UntilNewLine,
        };
        execute!(self.out, Clear(which))
    }

    fn size(&self) -> io::Result<Size> {
        terminal::size().map(|(width, height)| Size { width, height })
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        Ok(WindowSize { columns_rows: self.size()?, pixels: Size::default() })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The colours that pages use.
fn shade(colour: Color) -> Option<Shade> {
    match colour {
        Color::Red => Some(Shade::DarkRed),
        Color::Green => Some(Shade::DarkGreen),
        Color::Yellow => Some(Shade::DarkYellow),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn keys_mean_what_people_press_them_for() {
        let wish = |code, modifiers| Wish::of(&Event::Key(KeyEvent::new(code, modifiers)));
        for code in [KeyCode::Char('q'), KeyCode::Esc] {
            assert_eq!(wish(code, KeyModifiers::NONE), Some(Wish::Quit));
        }
        assert_eq!(wish(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Wish::Quit));
        assert_eq!(wish(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(wish(KeyCode::Down, KeyModifiers::NONE), Some(Wish::Scroll(1)));
        assert_eq!(Wish::of(&Event::Resize(1, 1)), Some(Wish::Resized));
    }

    #[derive(Clone, Default)]
    struct Terminal(Arc<Mutex<Vec<u8>>>);

    impl Write for Terminal {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_screen_is_given_back_when_what_draws_it_panics() {
        let terminal = Terminal::default();
        let screen = Screen::enter(terminal.clone(), true).unwrap();
        let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _screen = screen;
            panic!("while it is drawn");
        }));
        assert!(panics.is_err() && !IS_SCREEN.load(Ordering::SeqCst));
        let written = String::from_utf8(terminal.0.lock().unwrap().clone()).unwrap();
        assert!(written.starts_with("\u{1b}[?1049h\u{1b}[?25l"), "{written:?}");
        assert!(written.ends_with("\u{1b}[?1049l\u{1b}[?25h"), "{written:?}");
    }

    #[test]
    fn colours_are_left_out_where_nobody_wants_them() {
        let mut cell = Cell::new("x");
        cell.fg = Color::Red;
        for (colours, expected) in [(true, true), (false, false)] {
            let mut screen = std::mem::ManuallyDrop::new(Screen { out: Vec::new(), colours });
            screen.draw([(0, 0, &cell)].into_iter()).unwrap();
            assert_eq!(String::from_utf8_lossy(&screen.out).contains("\u{1b}[38;5;1m"), expected);
        }
    }
}
