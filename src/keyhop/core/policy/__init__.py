"""The choices a design makes: one file per question, one class per answer."""
