//! What an engine goes through in its life: places where it cannot open, upgrades, other numbers of shards, endpoints that
//! come late, kills.

mod golden;
mod layout;
mod nginx;
mod open;
mod reopen;
mod reserve;
mod shed;
mod strict;
