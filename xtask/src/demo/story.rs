//! How the demo speaks: numbered scenes for people, one document for machines.

use serde_json::{Value, json};

use crate::lab::{Answer, term};

/// Indentation of a scene's text.
const INDENT: &str = "    ";

/// The story as it was told so far.
pub struct Story {
    json: bool,
    scenes: Vec<Value>,
    said: Vec<String>,
}

impl Story {
    /// A story that has not begun.
    pub fn new(json: bool) -> Self {
        Self { json, scenes: Vec::new(), said: Vec::new() }
    }

    /// A line outside the scenes.
    pub fn say(&mut self, text: &str) {
        self.said.push(text.to_owned());
        self.print(&format!("\n{text}"));
    }

    /// Begins a scene.
    pub fn scene(&mut self, title: &str, told: &str) {
        let number = self.scenes.len() + 1;
        self.scenes.push(json!({
            "scene": number, "title": title, "told": told, "commands": [], "checked": [],
        }));
        self.print(&format!("\n{number}. {title}"));
        self.print_indented(told);
    }

    /// A command that was run, and what it said.
    pub fn command(&mut self, prompt: &str, line: &str, answer: &Answer) {
        let output = format!("{}{}", answer.stdout, answer.stderr);
        self.push(
            "commands",
            json!({
                "as": prompt, "command": line, "exit": answer.code, "output": output,
            }),
        );
        self.print(&format!("\n{INDENT}{prompt}$ {line}"));
        self.print_indented(output.trim_end());
        if answer.code != Some(0) {
            self.print(&format!("{INDENT}(exit code {:?})", answer.code.unwrap_or(-1)));
        }
    }

    /// Something shown that is not the output of a command.
    pub fn show(&mut self, what: &str, text: &str) {
        self.push("commands", json!({ "shown": what, "output": text }));
        self.print(&format!("\n{INDENT}{what}:"));
        self.print_indented(text.trim_end());
    }

    /// Something that must be so; the demo ends where it is not.
    pub fn check(&mut self, what: &str, is_so: bool) -> anyhow::Result<()> {
        self.push("checked", json!({ "what": what, "ok": is_so }));
        let mark = if is_so { "ok" } else { "NOT SO" };
        self.print(&format!("{INDENT}[{mark}] {what}"));
        anyhow::ensure!(is_so, "scene {} is not as told: {what}", self.scenes.len());
        Ok(())
    }

    /// The last word.
    pub fn end(&mut self, ok: bool, setup_s: u64, build_s: u64, total_s: u64) {
        let times = format!(
            "{} scenes in {total_s} s, of which set-up {setup_s} s and building {build_s} s.",
            self.scenes.len()
        );
        self.print(&format!("\n{times}"));
        if self.json {
            let document = json!({
                "ok": ok, "scenes": self.scenes, "said": self.said,
                "seconds": { "setup": setup_s, "build": build_s, "total": total_s },
            });
            term::line(&document.to_string());
        }
    }

    fn push(&mut self, list: &str, value: Value) {
        if let Some(Value::Array(values)) = self.scenes.last_mut().and_then(|s| s.get_mut(list)) {
            values.push(value);
        }
    }

    fn print(&self, text: &str) {
        if !self.json {
            term::line(text);
        }
    }

    fn print_indented(&self, text: &str) {
        for line in text.lines() {
            self.print(format!("{INDENT}{line}").trim_end());
        }
    }
}
