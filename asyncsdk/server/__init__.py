"""The platform itself: handlers of messages, the metadata store, object stores, the HTTP application."""
