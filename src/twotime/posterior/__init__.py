"""What posterior draws become: values, folders, reports and figures."""
