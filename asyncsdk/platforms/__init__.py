"""Who answers messages: an asyncsdk server over HTTP, the embedded platform, later one module per service."""
