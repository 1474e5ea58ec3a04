//! Names of ePDGs and N3IWFs.

use std::borrow::Cow;

use super::Plmn;

/// Which of an operator's names a name is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NameKind {
    /// Operator identifier FQDN of the ePDG (TS 23.003 §19.4.2.9.2).
    Operator,
    /// The same for emergency calls (TS 23.003 §19.4.2.9A.2).
    Emergency,
    /// Operator identifier FQDN of the N3IWF, the ePDG's successor in 5G (TS 23.003 §28.3.2.2.2).
    N3iwf,
    /// A name of the carrier's own, which its handsets are configured with.
    Carrier,
}

/// A name to ask DNS for, in lower case and without a final dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpdgName {
    /// The name.
    pub name: Cow<'static, str>,
    /// What it is.
    pub kind: NameKind,
}

/// The names that the standard gives every operator. The MNC has three digits in all of them
/// (TS 23.003 §19.2).
pub(super) fn standard(plmn: Plmn) -> [EpdgName; 3] {
    let operator = format!(
        "mnc{:03}.mcc{:03}.pub.3gppnetwork.org",
        plmn.mnc(),
        plmn.mcc()
    );
    [
        (NameKind::Operator, "epdg.epc"),
        (NameKind::Emergency, "sos.epdg.epc"),
        (NameKind::N3iwf, "n3iwf.5gc"),
    ]
    .map(|(kind, service)| EpdgName {
        name: format!("{service}.{operator}").into(),
        kind,
    })
}
