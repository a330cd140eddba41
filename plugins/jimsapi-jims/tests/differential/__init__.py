"""jims-api 0.6.2 and jimsapi side by side: what is sent, what may differ, and how both are run."""
