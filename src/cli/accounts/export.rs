//! `accounts export-audit`: the records of who did what, page by page. What was changed in the store is said, not hidden.

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use crate::app::Core;
use crate::audit::Record;
use crate::cli::say_part;
use crate::clock::Timestamp;
use crate::store::AuditQuery;

/// Records read from the store at a time.
const PAGE: usize = 1000;
const HEADER: &str = "time,sequence,event,who,account,account_id,outcome,why,request_id,peer,count,intent\n";

/// `bearerd accounts export-audit`.
#[derive(Args)]
pub(crate) struct ExportAudit {
    /// Not before this time: 2026-11-23T00:00:00Z, or 2026-11-23 for its beginning in UTC
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// Of this account only
    #[arg(long, value_name = "ALIAS")]
    account: Option<String>,
    #[arg(long, value_enum, default_value_t)]
    format: Sheet,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sheet {
    /// A JSON object a line
    #[default]
    Jsonl,
    /// With a line of names; texts in quotes
    Csv,
}

pub(super) async fn export(core: &Core, wanted: &ExportAudit) -> anyhow::Result<()> {
    let account_id = match &wanted.account {
        Some(alias) => {
            let grant = core.store.find(alias).await?;
            Some(grant.with_context(|| format!("there is no account {alias:?}"))?.key.id())
        }
        None => None,
    };
    let mut query =
        AuditQuery { since: wanted.since, until: wanted.until, account_id, limit: PAGE, ..AuditQuery::default() };
    let mut goes_on = wanted.format == Sheet::Jsonl || say_part(HEADER)?;
    while goes_on {
        let page = core.store.audit_page(query.clone()).await?;
        let lines: String = page.records.iter().map(|record| line(record, wanted.format)).collect();
        query.after = page.next;
        goes_on = say_part(&lines)? && page.next.is_some();
    }
    let mut after = None;
    loop {
        match core.store.audit_check(after).await? {
            Ok(None) => return Ok(()),
            Ok(more) => after = more,
            Err(flaw) => bail!("the audit log of the store is not what was written: {flaw}"),
        }
    }
}

fn line(record: &Record, format: Sheet) -> String {
    match format {
        Sheet::Jsonl => serde_json::to_string(record).unwrap_or_default() + "\n",
        Sheet::Csv => {
            let number = |number: Option<u64>| number.map(|number| number.to_string());
            let text = |text: &Option<String>| text.as_deref().map(quoted);
            let columns = [
                Some(record.time.to_string()),
                number(Some(record.sequence)),
                Some(record.event.clone()),
                Some(quoted(&record.who)),
                text(&record.account),
                record.account_id.clone(),
                Some(record.outcome.clone()),
                text(&record.why),
                record.request_id.clone(),
                text(&record.peer),
                number(Some(record.count)),
                number(record.intent),
            ];
            columns.map(Option::unwrap_or_default).join(",") + "\n"
        }
    }
}

/// RFC 4180; a spreadsheet must not take a text for a formula.
fn quoted(text: &str) -> String {
    let formula = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    format!("\"{formula}{}\"", text.replace('"', "\"\""))
}

fn time(text: &str) -> Result<Timestamp, String> {
    let full = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let time: jiff::Timestamp = full.parse().map_err(|_| "must be a time such as 2026-11-23T00:00:00Z or a date")?;
    Ok(Timestamp::from_millis(time.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_can_neither_be_broken_nor_run() {
        assert_eq!(quoted("a,\"b\"\nc"), "\"a,\"\"b\"\"\nc\"");
        assert_eq!(quoted("=HYPERLINK(1)"), "\"'=HYPERLINK(1)\"");
        assert_eq!(time("2026-11-23").unwrap(), time("2026-11-23T00:00:00Z").unwrap());
        assert!(time("yesterday").is_err());
    }
}
