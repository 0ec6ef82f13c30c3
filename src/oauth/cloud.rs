//! The clouds of Entra, as data: which hosts are one, and what differs between them. Tokens of one are worth nothing in another.

struct Cloud {
    hosts: &'static [&'static str],
    token_exchange: &'static str,
}

/// An authority that is in none of them is spoken to as the first.
const CLOUDS: &[Cloud] = &[
    Cloud {
        hosts: &["login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"],
        token_exchange: "api://AzureADTokenExchange",
    },
    Cloud {
        hosts: &["login.microsoftonline.us", "login.usgovcloudapi.net"],
        token_exchange: "api://AzureADTokenExchangeUSGov",
    },
    Cloud {
        hosts: &["login.partner.microsoftonline.cn", "login.chinacloudapi.cn"],
        token_exchange: "api://AzureADTokenExchangeChina",
    },
];

/// Whether both hosts belong to one authority.
pub fn is_one_cloud(a: &str, b: &str) -> bool {
    a == b || CLOUDS.iter().any(|cloud| cloud.hosts.contains(&a) && cloud.hosts.contains(&b))
}

/// The audience of tokens that stand in for a credential of an app registration.
pub(super) fn token_exchange_audience(host: &str) -> &'static str {
    CLOUDS.iter().find(|cloud| cloud.hosts.contains(&host)).unwrap_or(&CLOUDS[0]).token_exchange
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cloud_has_its_own_audience() {
        for (host, expected) in [
            ("login.microsoftonline.com", "api://AzureADTokenExchange"),
            ("login.microsoftonline.us", "api://AzureADTokenExchangeUSGov"),
            ("login.chinacloudapi.cn", "api://AzureADTokenExchangeChina"),
            ("127.0.0.1", "api://AzureADTokenExchange"),
        ] {
            assert_eq!(token_exchange_audience(host), expected, "{host}");
        }
    }

    #[test]
    fn aliases_stay_within_a_cloud() {
        assert!(is_one_cloud("login.microsoftonline.us", "login.usgovcloudapi.net"));
        assert!(is_one_cloud("127.0.0.1", "127.0.0.1"));
        assert!(!is_one_cloud("login.microsoftonline.us", "login.microsoftonline.com"));
        assert!(!is_one_cloud("127.0.0.1", "localhost"));
    }
}
