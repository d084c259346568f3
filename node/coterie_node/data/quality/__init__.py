"""What a site's rows look like: profiles under the floor, checks at home, and checks against others' profiles."""
