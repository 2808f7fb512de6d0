"""Other systems that read exports, or make them: imported only when asked for, each with what it needs."""
