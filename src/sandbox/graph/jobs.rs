//! Work that takes its time: whoever asks for the first time hears that it is under way, from then on that it is done.

use std::collections::HashMap;
use std::sync::Mutex;

use super::State;
use crate::sandbox::locked;

#[derive(Default)]
pub(super) struct Jobs(Mutex<HashMap<String, Job>>);

pub(super) enum Progress {
    UnderWay,
    Done(String),
}

struct Job {
    result: String,
    asked: bool,
}

impl Jobs {
    /// The name of a new job, whose `result` is ready at once and told at the second question.
    pub fn start(&self, result: &str) -> String {
        let name = State::name("");
        locked(&self.0).insert(name.clone(), Job { result: result.to_owned(), asked: false });
        name
    }

    /// `None`: no such job.
    pub fn ask(&self, name: &str) -> Option<Progress> {
        let mut jobs = locked(&self.0);
        let job = jobs.get_mut(name)?;
        let asked = std::mem::replace(&mut job.asked, true);
        Some(if asked { Progress::Done(job.result.clone()) } else { Progress::UnderWay })
    }
}
