//! Nothing to use here: the tests are in `it/` (Rust), `clients/` (Python and JavaScript) and `desktop/`.
