from django.contrib.admin import display as display
