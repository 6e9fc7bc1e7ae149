//! A terminal of a test's own, of any size, whose keys can be pressed and whose screen can be read: tmux, on a socket of its own.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A terminal in which something runs; ended when it is dropped.
pub struct Tmux {
    dir: tempfile::TempDir,
}

impl Tmux {
    /// Whether there is a tmux.
    pub fn is_there() -> bool {
        let version = Command::new("tmux").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    }

    /// Runs a line of the shell in a terminal of this size.
    ///
    /// # Panics
    /// When tmux does not start.
    pub fn start(width: u16, height: u16, line: &str) -> Self {
        let this = Self { dir: tempfile::tempdir().expect("a temporary folder") };
        let size = ["-x", &width.to_string(), "-y", &height.to_string()].map(str::to_owned);
        let mut command = this.command(&["new-session", "-d", "-s", "test"]);
        let output = command.args(size).arg(line).output().expect("tmux starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        this
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.socket()).args(["-f", "/dev/null"]).args(arguments);
        // tmux draws nothing that is no ASCII where it does not know better, and asks who it runs in.
        command.env("LC_ALL", "C.UTF-8").env("TERM", "xterm-256color").env_remove("TMUX").stdin(Stdio::null());
        command
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("tmux")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("tmux answers")
    }

    /// Presses a key, as tmux names it: `q`, `Escape`, `C-c`, `Down`.
    pub fn press(&self, key: &str) {
        self.run(&["send-keys", "-t", "test", key]);
    }

    /// Gives the terminal another size.
    pub fn resize(&self, width: u16, height: u16) {
        self.run(&["resize-window", "-t", "test", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.run(&["capture-pane", "-p", "-t", "test"]).stdout).into_owned()
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.run(&["kill-server"]);
    }
}
