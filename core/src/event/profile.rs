//! Records written from events: one file per profile.
