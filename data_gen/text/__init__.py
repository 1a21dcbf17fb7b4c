"""What is done once for each sentence, whatever the tasks: sentences, tokens, words, phrases and entities."""
