//! Names of the notifies that an IKE_SA_INIT response may carry in clear.

/// Asks for the same again with another key exchange group (RFC 7296 §1.2).
pub const INVALID_KE_PAYLOAD: u16 = 17;
/// Asks for the same again with a cookie (RFC 7296 §2.6).
pub const COOKIE: u16 = 16_390;
/// Sends the phone to another gateway (RFC 5685 §3).
pub const REDIRECT: u16 = 16_407;

/// Whether the phone is asked to go on in another way, so that it is no refusal if it does.
#[must_use]
pub const fn is_detour(notify: u16) -> bool {
    matches!(notify, INVALID_KE_PAYLOAD | COOKIE | REDIRECT)
}

/// The same of a notify that stands by its [name].
#[must_use]
pub fn is_detour_named(name: &str) -> bool {
    [INVALID_KE_PAYLOAD, COOKIE, REDIRECT]
        .into_iter()
        .any(|notify| known(notify) == Some(name))
}

/// The name of a notify message type; its number if it has none.
#[must_use]
pub fn name(notify: u16) -> String {
    known(notify).map_or_else(|| notify.to_string(), str::to_owned)
}

/// The name of a notify message type: RFC 7296 §3.10.1, IANA "IKEv2 Notify Message Types", and the private ones of 3GPP
/// TS 24.302 §8.1.2.2 and TS 24.502 §9.2.4.1.
#[must_use]
pub const fn known(notify: u16) -> Option<&'static str> {
    Some(match notify {
        1 => "UNSUPPORTED_CRITICAL_PAYLOAD",
        4 => "INVALID_IKE_SPI",
        5 => "INVALID_MAJOR_VERSION",
        7 => "INVALID_SYNTAX",
        9 => "INVALID_MESSAGE_ID",
        11 => "INVALID_SPI",
        14 => "NO_PROPOSAL_CHOSEN",
        INVALID_KE_PAYLOAD => "INVALID_KE_PAYLOAD",
        24 => "AUTHENTICATION_FAILED",
        34 => "SINGLE_PAIR_REQUIRED",
        35 => "NO_ADDITIONAL_SAS",
        36 => "INTERNAL_ADDRESS_FAILURE",
        37 => "FAILED_CP_REQUIRED",
        38 => "TS_UNACCEPTABLE",
        39 => "INVALID_SELECTORS",
        40 => "UNACCEPTABLE_ADDRESSES",
        41 => "UNEXPECTED_NAT_DETECTED",
        42 => "USE_ASSIGNED_HOA",
        43 => "TEMPORARY_FAILURE",
        44 => "CHILD_SA_NOT_FOUND",
        45 => "INVALID_GROUP_ID",
        46 => "AUTHORIZATION_FAILED",
        47 => "STATE_NOT_FOUND",
        8_192 => "PDN_CONNECTION_REJECTION",
        8_193 => "MAX_CONNECTION_REACHED",
        8_241 => "SEMANTIC_ERROR_IN_THE_TFT_OPERATION",
        8_242 => "SYNTACTICAL_ERROR_IN_THE_TFT_OPERATION",
        8_244 => "SEMANTIC_ERRORS_IN_PACKET_FILTERS",
        8_245 => "SYNTACTICAL_ERRORS_IN_PACKET_FILTERS",
        9_000 => "NON_3GPP_ACCESS_TO_EPC_NOT_ALLOWED",
        9_001 => "USER_UNKNOWN",
        9_002 => "NO_APN_SUBSCRIPTION",
        9_003 => "AUTHORIZATION_REJECTED",
        9_006 => "ILLEGAL_ME",
        10_500 => "NETWORK_FAILURE",
        11_001 => "RAT_TYPE_NOT_ALLOWED",
        11_005 => "IMEI_NOT_ACCEPTED",
        11_011 => "PLMN_NOT_ALLOWED",
        11_055 => "UNAUTHENTICATED_EMERGENCY_NOT_SUPPORTED",
        15_500 => "CONGESTION",
        COOKIE => "COOKIE",
        REDIRECT => "REDIRECT",
        41_041 => "BACKOFF_TIMER",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_names_and_the_rest_numbers() {
        assert_eq!(name(14), "NO_PROPOSAL_CHOSEN");
        assert_eq!(name(9_001), "USER_UNKNOWN");
        assert_eq!(name(12_345), "12345");
    }

    #[test]
    fn what_asks_for_another_way_is_no_refusal() {
        assert!([17, 16_390, 16_407].into_iter().all(is_detour));
        assert!(![14, 24, 9_001].into_iter().any(is_detour));
        assert!(is_detour_named("COOKIE") && !is_detour_named("NO_PROPOSAL_CHOSEN"));
    }
}
