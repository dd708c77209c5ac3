$ doppel ps --format xml
doppel: --format: 'xml' is unknown; choose text or json
[2]
