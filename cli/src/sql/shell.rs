//! `cairn sql` without a statement: a shell for people, or the statements of a pipe for programs.
//!
//! ```text
//! line ─▶ begins with \ ? ─▶ command        (only between statements)
//!    └──▶ buffer ─▶ complete up to ; ? ─▶ statement ─▶ answer ─▶ here, a file, or columns in a file
//! ```
//!
//! A person's mistake is told and the shell goes on; the first mistake in a pipe ends it.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Config, Editor};
use tokio_postgres::NoTls;

use super::commands::{self, Command};
use super::complete::Names;
use super::connection::{Answer, Connection};
use super::{Target, columns_file, split};
use crate::home::make_dir;
use crate::output::{Format, write_out};

/// The most lines that are remembered.
const HISTORY_MAX: usize = 1_000;
/// The longest statement that is read: as long as the server would read it by default.
const STATEMENT_BYTES_MAX: usize = 1 << 20;

/// Where answers go.
enum Sink {
    Here,
    Text(File),
    Columns(PathBuf),
}

/// A shell over one connection, which is made anew when the server ended it.
pub(super) struct Shell {
    target: Target,
    connection: Connection,
    format: Format,
    timing: bool,
    sink: Sink,
}

/// Whether the shell goes on.
enum Next {
    On,
    Quit,
}

impl Shell {
    /// Connects.
    pub(super) async fn open(target: Target, format: Format) -> Result<Self> {
        let connection = target.connect().await?;
        Ok(Self { target, connection, format, timing: false, sink: Sink::Here })
    }

    /// Reads a person's lines, or those of a pipe.
    pub(super) async fn run(mut self) -> Result<()> {
        if std::io::stdin().is_terminal() { self.converse().await } else { self.read_pipe().await }
    }

    /// Runs what standard input holds, and stops at the first error.
    async fn read_pipe(&mut self) -> Result<()> {
        let mut buffer = String::new();
        for line in std::io::stdin().lock().lines() {
            let line = line.context("standard input")?;
            if split::is_blank(&buffer) && line.trim_start().starts_with('\\') {
                buffer.clear();
                if let Next::Quit = self.command(&line).await? {
                    return Ok(());
                }
                continue;
            }
            buffer.push_str(&line);
            buffer.push('\n');
            buffer = self.run_complete(buffer).await?;
        }
        if !split::is_blank(&buffer) {
            self.statement(buffer.trim()).await?;
        }
        Ok(())
    }

    /// Runs the statements that are complete, and gives back the rest.
    async fn run_complete(&mut self, buffer: String) -> Result<String> {
        let (statements, rest) = split::statements(&buffer);
        for statement in statements {
            self.statement(statement).await?;
        }
        anyhow::ensure!(rest.len() <= STATEMENT_BYTES_MAX, "a statement of more than {STATEMENT_BYTES_MAX} bytes");
        Ok(if split::is_blank(rest) { String::new() } else { rest.to_owned() })
    }

    /// Talks with a person.
    async fn converse(&mut self) -> Result<()> {
        let config = Config::builder()
            .max_history_size(HISTORY_MAX)?
            .history_ignore_dups(true)?
            .completion_type(CompletionType::List)
            .build();
        let mut editor: Editor<Names, DefaultHistory> = Editor::with_config(config)?;
        editor.set_helper(Some(Names::default()));
        let history = history_file(&self.target.home);
        if let Some(file) = &history {
            // The first time there is none.
            let _ = editor.load_history(file);
        }
        crate::say!("cairn {}; \\? lists commands, statements end with a semicolon", env!("CARGO_PKG_VERSION"))?;
        self.learn_names(&mut editor).await;
        let mut buffer = String::new();
        loop {
            let prompt = if buffer.is_empty() { "cairn=> " } else { "cairn-> " };
            // The editor waits on the terminal: this thread is the runtime's to lend.
            let line = match tokio::task::block_in_place(|| editor.readline(prompt)) {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => {
                    buffer.clear();
                    continue;
                }
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(error).context("the terminal"),
            };
            match self.take_line(&line, &mut buffer, &mut editor).await {
                Ok(Next::On) => {}
                Ok(Next::Quit) => break,
                Err(error) => {
                    buffer.clear();
                    tell(&format!("error: {error:#}"))?;
                }
            }
            if let Some(file) = &history {
                // A history that cannot be kept is no reason to stop.
                let _ = editor.save_history(file);
            }
        }
        Ok(())
    }

    async fn take_line(
        &mut self,
        line: &str,
        buffer: &mut String,
        editor: &mut Editor<Names, DefaultHistory>,
    ) -> Result<Next> {
        if buffer.is_empty() && line.trim_start().starts_with('\\') {
            editor.add_history_entry(line.trim())?;
            let next = self.command(line).await?;
            self.learn_names(editor).await;
            return Ok(next);
        }
        if buffer.is_empty() && matches!(line.trim(), "quit" | "exit") {
            return Ok(Next::Quit);
        }
        buffer.push_str(line);
        buffer.push('\n');
        let whole = std::mem::take(buffer);
        if split::statements(&whole).0.is_empty() {
            *buffer = if split::is_blank(&whole) { String::new() } else { whole };
            return Ok(Next::On);
        }
        editor.add_history_entry(whole.trim().replace('\n', " "))?;
        *buffer = self.run_complete(whole).await?;
        Ok(Next::On)
    }

    /// Asks for the names of tables and columns; without them the shell completes less.
    async fn learn_names(&self, editor: &mut Editor<Names, DefaultHistory>) {
        let sql = "SELECT table_schema || '.' || table_name AS name FROM information_schema.tables \
                   WHERE table_schema NOT IN ('pg_catalog', 'information_schema') UNION \
                   SELECT column_name FROM information_schema.columns \
                   WHERE table_schema NOT IN ('pg_catalog', 'information_schema')";
        if let (Ok(answer), Some(helper)) = (self.connection.run(sql).await, editor.helper_mut()) {
            helper.replace(answer.table.texts());
        }
    }

    async fn command(&mut self, line: &str) -> Result<Next> {
        match commands::parse(line)? {
            Command::Quit => return Ok(Next::Quit),
            Command::Help => crate::say!("{}", commands::HELP)?,
            Command::Timing => {
                self.timing = !self.timing;
                crate::say!("timing is {}", if self.timing { "on" } else { "off" })?;
            }
            Command::Format(format) => self.format = format,
            Command::Output(file) => self.sink = file.map_or(Ok(Sink::Here), |file| sink(&file))?,
            Command::Tables => self.answer_here(commands::TABLES).await?,
            Command::Columns(name) => {
                let answer = self.connection.run(&commands::columns(&name)).await?;
                anyhow::ensure!(answer.table.len() > 0, "there is no table {name}; \\d lists those there are");
                answer.table.print(self.format)?;
            }
        }
        Ok(Next::On)
    }

    async fn answer_here(&mut self, sql: &str) -> Result<()> {
        self.reconnect().await?;
        self.connection.run(sql).await?.table.print(self.format)
    }

    /// Runs a statement and writes its answer where answers go.
    async fn statement(&mut self, sql: &str) -> Result<()> {
        self.reconnect().await?;
        let start = Instant::now();
        if let Sink::Columns(file) = &self.sink
            && is_query(sql)
        {
            let settings = self.settings().await?;
            let rows = columns_file::write(&self.target, &settings, sql, file).await?;
            crate::say!("{rows} rows in {}", file.display())?;
        } else {
            let answer = self.run_until_cancelled(sql).await?;
            self.write(&answer)?;
        }
        if self.timing {
            tell(&format!("{:.1} ms", start.elapsed().as_secs_f64() * 1_000.0))?;
        }
        Ok(())
    }

    /// What is set in this session and matters to the rows of a statement, which runs in another one.
    async fn settings(&self) -> Result<Vec<(&'static str, String)>> {
        let mut found = Vec::new();
        for name in [
            "cairn.as_of",
            "cairn.max_staleness",
            "cairn.on_unverified",
            "search_path",
            "statement_timeout",
            "timezone",
        ] {
            let value = self.connection.run(&format!("SHOW {name}")).await?.table.texts().pop();
            found.push((name, value.with_context(|| format!("the server does not know {name}"))?));
        }
        Ok(found)
    }

    async fn reconnect(&mut self) -> Result<()> {
        if self.connection.is_closed() {
            self.connection = self.target.connect().await?;
            tell("connected anew: settings are as they were at the start")?;
        }
        Ok(())
    }

    /// Runs a statement; Ctrl-C cancels it on the server, whose answer then says so.
    async fn run_until_cancelled(&self, sql: &str) -> Result<Answer> {
        let running = self.connection.run(sql);
        tokio::pin!(running);
        loop {
            tokio::select! {
                answer = &mut running => return answer,
                asked = tokio::signal::ctrl_c() => {
                    asked.context("Ctrl-C")?;
                    self.connection.cancel_token().cancel_query(NoTls).await.context("cancelling the statement")?;
                }
            }
        }
    }

    fn write(&mut self, answer: &Answer) -> Result<()> {
        if answer.has_rows {
            let mut bytes = answer.table.render(self.format)?;
            if self.format == Format::Table {
                bytes.extend_from_slice(format!("{} rows\n", answer.table.len()).as_bytes());
            }
            match &mut self.sink {
                Sink::Text(file) => file.write_all(&bytes).context("writing the file of \\o")?,
                _ => write_out(&bytes)?,
            }
        }
        for notice in &answer.notices {
            tell(notice)?;
        }
        Ok(())
    }
}

/// Whether a statement has rows that can be written as columns.
fn is_query(sql: &str) -> bool {
    let first = sql.split(|character: char| !character.is_alphabetic()).find(|word| !word.is_empty());
    first.is_some_and(|word| ["select", "with", "values", "table"].contains(&word.to_ascii_lowercase().as_str()))
}

/// Says something beside the data.
fn tell(text: &str) -> Result<()> {
    Ok(std::io::stderr().lock().write_all(format!("{text}\n").as_bytes())?)
}

/// Opens the file that answers go to.
fn sink(file: &Path) -> Result<Sink> {
    if columns_file::Form::of(file).is_ok() {
        return Ok(Sink::Columns(file.to_owned()));
    }
    let opened = File::create(file).with_context(|| format!("the file {} cannot be written", file.display()))?;
    Ok(Sink::Text(opened))
}

/// The file of the history, of mode 0600: in the user's state folder, or in that of the network.
fn history_file(home: &Path) -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let user = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let folder = state.or(user).map_or_else(|| home.join("data"), |state| state.join("cairn"));
    make_dir(&folder, 0o700).ok()?;
    let file = folder.join("sql_history");
    let made = OpenOptions::new().create(true).append(true).mode(0o600).open(&file).ok()?;
    made.set_permissions(std::fs::Permissions::from_mode(0o600)).ok()?;
    Some(file)
}
