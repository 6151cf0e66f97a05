"""`mtdlr serve`: a page for one patient at a time. The server holds no network; one worker process predicts."""
