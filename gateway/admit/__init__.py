"""Judgement about senders: who may speak to us. Pure."""
