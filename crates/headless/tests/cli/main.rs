//! The command line as a user and a script see it: arguments, output, exit codes, signals, what is left behind.
#![cfg(test)]

mod kit;
mod offline;
mod pulling;
mod serving;
mod speech;
mod talking;
mod voices;
