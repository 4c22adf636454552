"""Turn reports into what people and machines read. One module per format, imported when wanted."""
