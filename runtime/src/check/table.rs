//! Findings as text.

use super::{Finding, State};

/// One line a finding, in three columns.
pub fn table(findings: &[Finding]) -> String {
    let parts = findings.iter().map(|finding| finding.part.chars().count());
    let width = parts.max().unwrap_or(0);
    let lines = findings.iter().map(
        |Finding {
             part,
             state,
             detail,
         }| {
            let state = match state {
                State::Fit => "ok",
                State::Optional => "missing",
                State::Unfit => "UNFIT",
            };
            let detail = detail.replace(['\n', '\r'], " ");
            format!("{part:width$}  {state:7}  {detail}\n")
        },
    );
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_contents() {
        let findings = [
            Finding::fit("KVM", "runs Linux"),
            Finding::optional("/dev/vhost-net", "modprobe vhost_net"),
            Finding::unfit("runc", "not found:\ninstall it"),
        ];
        assert_eq!(
            table(&findings),
            "KVM             ok       runs Linux\n\
             /dev/vhost-net  missing  modprobe vhost_net\n\
             runc            UNFIT    not found: install it\n"
        );
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn what_is_optional_does_not_make_a_host_unfit() {
        let optional = Finding::optional("x", "");
        assert!(super::super::is_fit(std::slice::from_ref(&optional)));
        assert!(!super::super::is_fit(&[optional, Finding::unfit("y", "")]));
    }
}
