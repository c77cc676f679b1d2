"""All published designs side by side: nine hypotheses tested, published results beside ours."""
