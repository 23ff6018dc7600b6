//! The access tokens of an engine. All shards send the same one to an endpoint, and one of them fetches it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::auth::Auth;
use crate::auth::oauth::{TokenPolicy, TokenState};
use crate::driver;
use crate::lock::Mutex;

/// One token, with the clock that its times are of.
pub(crate) struct Token {
    started: Instant,
    pub(super) state: Mutex<TokenState>,
}

impl Default for Token {
    fn default() -> Token {
        Token { started: driver::now(), state: Mutex::new(TokenState::new(TokenPolicy::default())) }
    }
}

impl Token {
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(driver::since(self.started).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The tokens that are in use, by the URLs that they are sent to. What another destination does with its token is no concern
/// of this one, unless both say the same of themselves to the same URL.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<BTreeMap<String, Vec<Entry>>>);

struct Entry {
    auth: Arc<[Auth]>,
    token: Weak<Token>,
}

impl Tokens {
    /// The token for a URL and credentials, the same one as long as somebody has it.
    pub(crate) fn of(&self, url: &str, auth: &Arc<[Auth]>) -> Arc<Token> {
        if !auth.iter().any(|a| matches!(a, Auth::JwtBearer(_) | Auth::ClientCredentials(_))) {
            // There will be none.
            return Arc::default();
        }
        let mut all = self.0.lock();
        let entries = all.entry(url.to_owned()).or_default();
        entries.retain(|e| e.token.strong_count() > 0);
        if let Some(token) = entries.iter().find(|e| e.auth == *auth).and_then(|e| e.token.upgrade()) {
            return token;
        }
        let token = Arc::new(Token::default());
        entries.push(Entry { auth: auth.clone(), token: Arc::downgrade(&token) });
        token
    }

    /// Forgets a URL to which no token is sent any more.
    pub(crate) fn forget(&self, url: &str) {
        let mut all = self.0.lock();
        if all.get(url).is_some_and(|entries| entries.iter().all(|e| e.token.strong_count() == 0)) {
            all.remove(url);
        }
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::oauth::{ClientCredentials, TokenEndpoint};

    fn credentials(secret: &str) -> Arc<[Auth]> {
        let endpoint = TokenEndpoint::new("https://tokens.example/t").unwrap();
        [Auth::ClientCredentials(ClientCredentials::new(endpoint, "me", crate::auth::Secret::text(secret)))].into()
    }

    #[test]
    fn one_token_for_all_that_say_the_same_to_an_endpoint() {
        let tokens = Tokens::default();
        let (a, b) = (tokens.of("https://a/", &credentials("1")), tokens.of("https://a/", &credentials("1")));
        assert!(Arc::ptr_eq(&a, &b));
        assert!(!Arc::ptr_eq(&a, &tokens.of("https://b/", &credentials("1"))));
        assert!(!Arc::ptr_eq(&a, &tokens.of("https://a/", &credentials("2"))));
        drop(a);
        tokens.forget("https://a/");
        assert!(Arc::ptr_eq(&b, &tokens.of("https://a/", &credentials("1"))), "somebody has it still");
        drop(b);
        tokens.forget("https://a/");
        tokens.forget("https://b/");
        assert!(tokens.0.lock().is_empty());
    }
}
