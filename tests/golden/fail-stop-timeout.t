$ doppel stop x --timeout soon
doppel: --timeout: 'soon' is no number of seconds; give one up to 86400
[2]
