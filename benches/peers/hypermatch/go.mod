module peer-hypermatch

go 1.24

require github.com/SchwarzDigits/hypermatch/v2 v2.2.0
