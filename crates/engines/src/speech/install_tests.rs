//! The whole installation with stand-ins for Python, pip and uv.
