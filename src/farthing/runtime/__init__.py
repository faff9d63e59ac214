"""What lives as long as the process: its ledgers and settings, who is called under which scope, and the housekeeper."""
