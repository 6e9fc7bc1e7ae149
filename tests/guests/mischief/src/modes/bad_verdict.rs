//! Gives a verdict that is none, in a step that may give none.

use dossier_sdk::{Answer, Failure, Label, Verdict};

use crate::Ask;

pub fn enrich(_: &Ask<'_>) -> Result<Answer, Failure> {
    let verdict = Verdict { label: Label::Malicious, score: 255, reasons: vec!["because".into()] };
    Ok(Answer::from_json("{}").verdict(verdict))
}
