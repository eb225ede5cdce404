module cairn-verify

go 1.23
