"""The stages of a run, in four groups: look (images, masks), erase, observe (samples), measure."""
